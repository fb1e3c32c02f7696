"""The options of every command that solves a workload, and what they make of its spec."""

from __future__ import annotations

import click
import pytest

from melange.cli.main import main
from melange.cli.planning import asked_spec, planning_options, rate_or_statistic, release_plan, solve_options
from melange.cli.slo_options import Limit
from melange.errors import InputError
from melange.planning.options import SolveOptions


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max", "L4=²"],
        ["--max", "L4=1", "--max", "L4=2"], ["--max", "L4=-1"], ["--max", "L4"], ["--only", "L4,,H100"],
        ["--only", ""], ["--rate", "1e300"], ["--headroom", "1e300"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_that_mean_nothing_are_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(["solve", "arena-120ms", *arguments])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1


NOTHING = {
    **dict.fromkeys((
        "slo_ttft_ms", "tpot_definition", "attainment", "headroom", "fill", "price_set", "price_file", "spot",
        "max_cost_usd_per_hour", "slice_factor", "gap", "time_limit_s", "every_window", "window_share",
        "late_by_design",
    )),
    **dict.fromkeys((
        "precisions", "tp", "kv_dtypes", "batched_tokens", "sequences", "only", "exclude", "providers", "regions",
    ), ()),
    "maximum": {}, "owned": {}, "minimum": {}, "margin": 0.0, "routing": "by-size",
}  # fmt: skip


def test_every_option_is_read():
    @click.command()
    @planning_options
    def command(**given):
        assert given == NOTHING

    command.main([], standalone_mode=False)


def test_without_options_the_spec_stays(small_spec):
    assert asked_spec(small_spec, NOTHING) == small_spec


def test_how_many_may_be_late_by_design_is_asked(small_spec, tmp_path, capsys):
    assert asked_spec(small_spec, NOTHING | {"late_by_design": 0.2}).late_by_design == 0.2
    with pytest.raises(InputError, match="cannot take requests late by design"):
        release_plan("config.json", NOTHING | {"late_by_design": 0.2}, rate_rps=None, tpot_ms=None)
    with pytest.raises(SystemExit) as ended:
        main(["solve", "arena-120ms", "--late-by-design", "1.5"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_asked_takes_the_place_of_the_files(small_spec):
    given = NOTHING | {
        "slo_ttft_ms": Limit(500.0), "attainment": 0.9, "price_set": "2026-11", "spot": True, "precisions": ("fp8",),
        "tp": (1, 2), "maximum": {"L4": 3}, "exclude": ("H100",), "max_cost_usd_per_hour": 9.0,
    }  # fmt: skip
    spec = asked_spec(small_spec, given, rate_rps=7.0, tpot_ms=Limit(80.0))
    assert (spec.slo.tpot_s, spec.slo.ttft_s, spec.slo.attainment) == (0.08, 0.5, 0.9)
    assert spec.slo.tpot_definition == small_spec.slo.tpot_definition
    assert spec.workload.total_rate_rps == pytest.approx(7)
    assert (spec.prices.price_set, spec.prices.spot) == ("2026-11", True)
    assert (spec.serving.precisions, spec.serving.tp) == (("fp8",), (1, 2))
    assert (spec.limits.types["L4"].maximum, spec.limits.exclude) == (3, ("H100",))
    assert spec.limits.max_cost_usd_per_hour == 9.0


def test_percentiles_take_the_place_of_a_joint_attainment_and_the_other_way_round(small_spec):
    joint = asked_spec(small_spec, NOTHING | {"slo_ttft_ms": Limit(500.0), "attainment": 0.9})
    each = {"slo_ttft_ms": Limit(400.0, 0.95)}
    spec = asked_spec(joint, NOTHING | each, tpot_ms=Limit(80.0, 0.99))
    assert spec.slo.quantiles == {"tpot": 0.99, "ttft": 0.95}
    assert (spec.slo.attainment, spec.slo.ttft_s) == (None, 0.4)
    assert asked_spec(spec, NOTHING | {"slo_ttft_ms": Limit(300.0)}).slo.quantiles == spec.slo.quantiles
    assert asked_spec(spec, NOTHING | {"attainment": 0.9}).slo.statistic == "attainment"
    with pytest.raises(InputError, match="TPOT has no percentile beside p95 TTFT"):
        asked_spec(joint, NOTHING | each)
    with pytest.raises(InputError, match="keep one of them"):
        asked_spec(joint, NOTHING | each | {"attainment": 0.9}, tpot_ms=Limit(80.0, 0.99))


def test_a_margin_scales_the_load_that_is_planned_for(small_spec):
    scale = asked_spec(small_spec, NOTHING | {"margin": 0.15}).load_scale
    assert scale is not None
    assert scale.factor == pytest.approx(1.15)


def test_how_to_solve():
    options = solve_options(NOTHING | {"routing": "input-only", "slice_factor": 4, "gap": 0.01, "explain": True})
    assert options == SolveOptions(slice_factor=4, gap=0.01, tie_outputs=True, explain=True)
    assert solve_options(NOTHING) == SolveOptions()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slo_ttft_ms": Limit(5.0)}, "an SLO"),
        ({"price_set": "2026-11"}, "a price set"),
        ({"fill": "estimated"}, "a model to estimate with"),
        ({"tp": (2,)}, "a serving choice"),
        ({"owned": {"L4": (1, None)}}, "owned machines"),
    ],
)
def test_a_release_config_states_no_such_thing(change, message):
    with pytest.raises(InputError, match=message):
        release_plan("config.json", NOTHING | change, rate_rps=None, tpot_ms=None)


def test_a_rate_is_a_number_or_a_statistic():
    read = [rate_or_statistic(None, None, text) for text in (None, "8", "mean", "peak", "p95")]
    assert read == [None, 8.0, "mean", "peak", "p95"]
    with pytest.raises(click.BadParameter, match="neither a number nor one of mean, peak, p95"):
        rate_or_statistic(None, None, "p99")


@pytest.mark.parametrize(
    ("given", "share"),
    [({"every_window": True}, 1.0), ({"every_window": False}, None), ({"window_share": 0.9}, 0.9), ({}, 0.5)],
)
def test_windows_are_those_asked_for_or_the_files(small_spec, given, share):
    assert asked_spec(small_spec.for_windows(0.5), NOTHING | given).window_share == share


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--for-every-window", "--window-share", "0.9"], "not both"),
        (["--for-every-window", "--rate", "peak"], "stands for the windows"),
        (["--window-share", "0"], "not between 0 and 1"),
        (["--window-share", "some"], "not a share"),
        (["--for-every-window", "--uncertainty", "20"], "odds are those of the whole mix"),
    ],
)
def test_windows_that_cannot_be_asked_for_are_one_line(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(["solve", "azure-conversation", *arguments])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1


def test_a_workload_without_windows_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["solve", "arena-120ms", "--for-every-window"])
    assert ended.value.code == 2
    assert "has no windows to plan for" in capsys.readouterr().err


def test_the_windows_are_said(capsys):
    main_arguments = ["solve", "azure-conversation", "--only", "L40S", "--batched-tokens", "512"]
    with pytest.raises(SystemExit) as ended:
        main([*main_arguments, "--for-every-window"])
    said = " ".join(capsys.readouterr().out.split())
    assert not ended.value.code
    assert "planned for every one of 19 windows; decided by 0:27:39 to 0:30:43" in said
    assert "the mean load alone takes $" in said
