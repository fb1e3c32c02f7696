"""The original release's config.json."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melange import InputError, Limits, SolveOptions, read_plan, write_plan
from melange.cli.main import melange as cli
from melange.interop.release import is_release_config, plan_release

# The release's own example, with its blank line and spacing.
EXAMPLE = """{
    "gpu_info": {

        "A100-80GB": {
            "cost": 3.67,
            "tputs": [[20, 2], [50, 20]]
        }
    },
    "workload_distribution": [[0.25, 0.125], [0.375, 0.25]],
    "total_request_rate": 1.0,
    "slice_factor": 1
}"""

TWO_GPUS: dict[str, Any] = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[5.0, 0.5], [2.0, 0.25]]},
        "A100": {"cost": 3.67, "tputs": [[8.0, 2.0], [6.0, 1.5]]},
    },
    "workload_distribution": [[0.5, 0.25], [0.15, 0.1]],
    "total_request_rate": 6.0,
    "slice_factor": 4,
}


def written(folder: Path, data: object) -> Path:
    path = folder / "config.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data, indent=1))
    return path


def brute_force_cost(data: dict[str, Any]) -> float:
    """Every way to hand out whole slices, in plain loops."""
    gpus, slices = list(data["gpu_info"]), data["slice_factor"]
    cells = [
        (share * data["total_request_rate"], [data["gpu_info"][g]["tputs"][i][j] for g in gpus])
        for i, row in enumerate(data["workload_distribution"])
        for j, share in enumerate(row)
        if share > 0
    ]
    splits = [c for c in itertools.product(range(slices + 1), repeat=len(gpus)) if sum(c) == slices]
    best = math.inf
    for choice in itertools.product(splits, repeat=len(cells)):
        loads = [0.0] * len(gpus)
        for split, (rate, tputs) in zip(choice, cells, strict=True):
            for g, count in enumerate(split):
                if count:
                    loads[g] += rate * count / slices / tputs[g] if tputs[g] else math.inf
        if math.inf in loads:
            continue
        cost = sum(math.ceil(x - 1e-9) * data["gpu_info"][g]["cost"] for g, x in zip(gpus, loads, strict=True))
        best = min(best, cost)
    return best


def test_the_release_s_own_example(tmp_path: Path) -> None:
    plan = plan_release(written(tmp_path, EXAMPLE))
    assert plan.status == "optimal"
    assert plan.instances == {"A100-80GB": 1}
    assert plan.cost_usd_per_hour == pytest.approx(3.67)
    assert plan.slice_factor == 1
    assert plan.utilization["A100-80GB"] == pytest.approx(0.25 / 20 + 0.125 / 2 + 0.375 / 50 + 0.25 / 20)


def test_file_slices_and_the_continuous_cost_beside_them(tmp_path: Path) -> None:
    plan = plan_release(written(tmp_path, TWO_GPUS))
    assert plan.slice_factor == 4
    assert plan.cost_usd_per_hour == pytest.approx(brute_force_cost(TWO_GPUS))
    assert plan.continuous_cost_usd_per_hour is not None
    assert plan.continuous_cost_usd_per_hour <= plan.cost_usd_per_hour + 1e-9
    for bucket in plan.buckets:
        for share in bucket.shares.values():
            assert share * 4 == pytest.approx(round(share * 4))


def test_an_option_overrides_the_file_s_slices(tmp_path: Path) -> None:
    data = {**TWO_GPUS, "slice_factor": 1}
    asked = plan_release(written(tmp_path, data), SolveOptions(slice_factor=4))
    assert asked.slice_factor == 4
    assert asked.cost_usd_per_hour == pytest.approx(brute_force_cost(TWO_GPUS))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cost_equals_a_brute_force(tmp_path: Path, data: st.DataObject) -> None:
    rate = st.floats(0.1, 20, allow_nan=False).map(lambda v: round(v, 3))
    matrix = st.lists(st.lists(rate, min_size=2, max_size=2), min_size=2, max_size=2)
    config = {
        "gpu_info": {name: {"cost": data.draw(rate), "tputs": data.draw(matrix)} for name in ("L4", "H100")},
        "workload_distribution": data.draw(matrix),
        "total_request_rate": data.draw(st.sampled_from([0.1, 1.0, 3.0])),
        "slice_factor": data.draw(st.sampled_from([1, 2, 3])),
    }
    plan = plan_release(written(tmp_path, config))
    assert plan.cost_usd_per_hour == pytest.approx(brute_force_cost(config), rel=2e-6)


def test_plan_has_null_edges_null_token_costs_and_baselines(tmp_path: Path) -> None:
    plan = plan_release(written(tmp_path, TWO_GPUS))
    assert all(b.input_tokens_max is None and b.output_tokens_max is None for b in plan.buckets)
    assert [b.rate_rps for b in plan.buckets] == pytest.approx([3.0, 1.5, 0.9, 0.6])
    assert plan.costs is not None
    assert plan.costs.usd_per_month == pytest.approx(730 * (plan.cost_usd_per_hour or 0))
    assert plan.costs.usd_per_million_tokens is None
    assert set(plan.baselines) == {"A10G", "A100"}
    # alone: 3/5 + 1.5/0.5 + 0.9/2 + 0.6/0.25 = 6.45 -> 7;  3/8 + 1.5/2 + 0.9/6 + 0.6/1.5 = 1.675 -> 2 (4 slices)
    assert plan.baselines["A10G"].instances == {"A10G": 7}
    assert plan.baselines["A100"].instances == {"A100": 2}
    assert plan.best_single_type == "A10G"


def test_plan_file_round_trip(tmp_path: Path) -> None:
    plan = plan_release(written(tmp_path, TWO_GPUS))
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan


def test_missing_slice_factor_is_one_as_in_the_release(tmp_path: Path) -> None:
    data = {key: value for key, value in TWO_GPUS.items() if key != "slice_factor"}
    assert plan_release(written(tmp_path, data)).slice_factor == 1


def test_shares_are_multiplied_by_the_rate_even_if_they_do_not_sum_to_one(tmp_path: Path) -> None:
    data = {**TWO_GPUS, "workload_distribution": [[5, 2.5], [1.5, 1]], "total_request_rate": 0.6}
    plan = plan_release(written(tmp_path, data))
    assert plan.workload.rate_rps == pytest.approx(6.0)
    assert any("sum to 10, not 1" in text for text in plan.warnings)
    scaled = plan_release(written(tmp_path, data), rate_rps=3.0)
    assert scaled.workload.rate_rps == pytest.approx(3.0)
    assert not any("sum to" in text for text in scaled.warnings)


def test_headroom_scales_the_rate(tmp_path: Path) -> None:
    path = written(tmp_path, TWO_GPUS)
    with_margin = plan_release(path, headroom=0.5)
    faster = plan_release(path, rate_rps=9.0)
    assert with_margin.cost_usd_per_hour == pytest.approx(faster.cost_usd_per_hour)


def test_limits_by_gpu(tmp_path: Path) -> None:
    path = written(tmp_path, TWO_GPUS)
    capped = plan_release(path, limits=Limits().narrowed(maximum={"A10G": 2}))
    assert capped.instances.get("A10G", 0) <= 2
    assert plan_release(path, limits=Limits(exclude=("A10G",))).instances == {"A100": 2}
    with pytest.raises(InputError, match="did you mean 'A100'"):
        plan_release(path, limits=Limits(only=("A1000",)))


def test_a_gpu_without_throughput_serves_nothing_there(tmp_path: Path) -> None:
    data = json.loads(json.dumps(TWO_GPUS))
    data["gpu_info"]["A10G"]["tputs"][1][1] = 0
    plan = plan_release(written(tmp_path, data))
    assert "A10G" not in plan.buckets[3].shares
    assert "[1][1]" in (plan.baselines["A10G"].reason or "")
    assert plan.cost_usd_per_hour == pytest.approx(brute_force_cost(data))


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"slice_factr": 2}, "", "unknown key 'slice_factr' in the document; did you mean 'slice_factor'?"),
        ({"slice_factor": 0}, "", "slice_factor is 0; give a value at least 1"),
        ({"slice_factor": 1.5}, "", "slice_factor is 1.5, not a whole number"),
        ({"total_request_rate": -1}, "", "total_request_rate is -1; give a value above 0"),
        ({"total_request_rate": "4"}, "", "total_request_rate is the text '4'"),
        ({"workload_distribution": [[0, 0], [0, 0]]}, "", "the workload is empty"),
        ({"workload_distribution": [[1, 0], [1]]}, "", "row 1 of workload_distribution has 1 columns, not 2"),
        ({"workload_distribution": [[1, -0.5]]}, "", "workload_distribution.0.1 is -0.5"),
        ({"workload_distribution": [[1, 1], [1, 1], [1, 1]]}, "", "tputs has 2 rows, workload_distribution 3"),
        ({"gpu_info": {}}, "", "gpu_info is empty"),
        ({"gpu_info": {"L4": {"tputs": [[1, 1], [1, 1]]}}}, "", "gpu_info.L4 lacks the key 'cost'"),
        ({"gpu_info": {"L4": {"cost": 0, "tputs": [[1, 1], [1, 1]]}}}, "", "gpu_info.L4.cost is 0"),
    ],
)
def test_bad_input_is_one_line_with_its_place(tmp_path: Path, change: dict[str, Any], where: str, what: str) -> None:
    path = written(tmp_path, {**TWO_GPUS, **change})
    with pytest.raises(InputError) as caught:
        plan_release(path)
    assert what in str(caught.value)
    assert caught.value.line is not None
    assert caught.value.column is not None
    assert "\n" not in str(caught.value)


def test_the_place_of_an_error_is_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, EXAMPLE.replace("3.67", '"much"'))
    with pytest.raises(InputError) as caught:
        plan_release(path)
    assert (caught.value.line, caught.value.column) == (5, 21)


@pytest.mark.parametrize("text", [EXAMPLE[:-1], EXAMPLE.replace("1.0,", "1.0,,"), EXAMPLE.replace("1.0", "NaN")])
def test_broken_json_names_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_release(written(tmp_path, text))
    assert caught.value.line is not None


def test_tabs_are_json_too(tmp_path: Path) -> None:
    assert plan_release(written(tmp_path, EXAMPLE.replace("    ", "\t"))).status == "optimal"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--slo-tpot-ms", "40"], "SLO"),
        (["--price-set", "2026-11"], "price set"),
        (["--fill", "estimated"], "estimate"),
        (["--routing", "input-only"], "routing"),
    ],
)
def test_what_the_file_does_not_state_is_refused(tmp_path: Path, options: list[str], word: str) -> None:
    result = CliRunner().invoke(cli, ["solve", str(written(tmp_path, TWO_GPUS)), *options])
    assert isinstance(result.exception, InputError)
    assert "the original release's config cannot take" in str(result.exception)
    assert word in str(result.exception)


def test_telling_the_format(tmp_path: Path) -> None:
    assert is_release_config(written(tmp_path, EXAMPLE))
    assert not is_release_config(written(tmp_path, "version: 1\nname: x\n"))
    assert not is_release_config(tmp_path / "none.json")


def test_command_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["solve", str(written(tmp_path, TWO_GPUS))])
    assert result.exit_code == 0, result.output
    assert "with slices of 1/4; with continuous shares $" in result.output
    result = CliRunner().invoke(cli, ["solve", str(written(tmp_path, TWO_GPUS)), "-o", "json", "--slice-factor", "2"])
    assert json.loads(result.stdout)["slice_factor"] == 2


def test_infeasible_is_exit_3_and_names_the_bucket(tmp_path: Path) -> None:
    data = json.loads(json.dumps(TWO_GPUS))
    for gpu in data["gpu_info"].values():
        gpu["tputs"][1][1] = 0
    result = CliRunner().invoke(cli, ["solve", str(written(tmp_path, data))])
    assert result.exit_code == 3
    assert "[1][1]" in result.stderr
