"""AIBrix's profiles, in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melange import InputError, Slo, plan_fleet, profile_from
from melange.interop.aibrix import from_choices, from_plan, measurements_of, prices_csv, read_aibrix
from melange.planning.planner import choices_of

# Three output sizes by two input sizes, as AIBrix writes them: rows are outputs.
PROFILE: dict[str, Any] = {
    "gpu": "chat-l4",
    "cost": 0.7,
    "tputs": [[30.0, 20.0], [15.0, 10.0], [3.0, 0.0]],
    "indexes": [[4, 32, 256], [128, 1024]],
    "created": 1748888478.258241,
    "e2e": [[0.1, 0.2], [0.3, 0.4], [2.0, 6.0]],
    "slos": {"percentile": 99, "e2e": 5.0},
}


def written(folder: Path, data: object, name: str = "profile.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_matrices_are_transposed(tmp_path):
    (profile,) = read_aibrix(written(tmp_path, PROFILE))
    assert profile.input_tokens.tolist() == [128, 1024]
    assert profile.output_tokens.tolist() == [4, 32, 256]
    assert profile.max_rate_rps.tolist() == [[30, 15, 3], [20, 10, 0]]
    assert profile.mean_latency_s["e2e"].tolist() == [[0.1, 0.3, 2.0], [0.2, 0.4, 6.0]]


def test_points_are_capacities_at_their_sizes(tmp_path):
    (profile,) = read_aibrix(written(tmp_path, PROFILE))
    header, points = measurements_of(profile, model="llama-2-7b", gpu="l4")
    rates = {(p.input_tokens, p.output_tokens): p.achieved_rps for p in points}
    assert rates == {(128, 4): 30, (128, 32): 15, (128, 256): 3, (1024, 4): 20, (1024, 32): 10, (1024, 256): 0}
    assert {p.gpu for p in points} == {"L4"}
    assert points[0].extra["mean_e2e_s"] == 0.1
    assert points[0].date == "2025-06-02"
    assert header.facts["slos"] == {"percentile": 99, "e2e": 5.0}


def test_an_slo_is_never_assumed_for_them(tmp_path):
    (profile,) = read_aibrix(written(tmp_path, PROFILE))
    _, points = measurements_of(profile, model="llama-2-7b", gpu="L4")
    slo = Slo(tpot_s=0.1)
    with pytest.raises(InputError, match="saturation throughputs without an SLO"):
        profile_from(points, slo)
    assumed = profile_from(points, slo, assume_slo=True)
    (table,) = assumed.configs.values()
    assert table.max_rate_rps.tolist() == [[30, 15, 3], [20, 10, 0]]
    assert assumed.warnings


@pytest.mark.parametrize("text", [json.dumps([PROFILE, PROFILE]), json.dumps(PROFILE) + "\n" + json.dumps(PROFILE)])
def test_a_list_and_one_profile_a_line(tmp_path, text):
    profiles = read_aibrix(written(tmp_path, text))
    assert [p.max_rate_rps.tolist() for p in profiles] == [[[30, 15, 3], [20, 10, 0]]] * 2


def test_keys_of_newer_versions_are_kept(tmp_path):
    (profile,) = read_aibrix(written(tmp_path, PROFILE | {"kernel": "x"}))
    header, _ = measurements_of(profile, model="m", gpu="L4")
    assert header.facts["other"] == {"kernel": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tputs": [[1, 2], [3, 4]]}, "tputs has 2 rows for 3 output sizes"),
        ({"tputs": [[1, 2, 3], [4, 5, 6]]}, "tputs has 2 rows for 3 output sizes"),
        ({"tputs": [[1, 2], [3], [4, 5]]}, "row 1 of tputs has 1 values for 2 input sizes"),
        ({"e2e": [[1, 2]]}, "e2e has 1 rows"),
        ({"indexes": [[4, 32, 32], [128, 1024]]}, "indexes.0 is not ascending: 32 follows 32"),
        ({"indexes": [[4, 32, 256]]}, "indexes"),
        ({"cost": "cheap"}, "cost is the text 'cheap'"),
        ({"tputs": [[1, -2], [3, 4], [5, 6]]}, "tputs.0.1 is -2"),
    ],
)
def test_bad_profiles_name_their_place(tmp_path, change, message):
    path = written(tmp_path, json.dumps([PROFILE, PROFILE | change], indent=1))
    with pytest.raises(InputError) as caught:
        read_aibrix(path)
    assert message in str(caught.value)
    assert (caught.value.line or 0) > len(json.dumps(PROFILE, indent=1).splitlines())


def test_a_bad_line_of_json_lines_names_its_line(tmp_path):
    text = json.dumps(PROFILE) + "\n\n" + json.dumps({**PROFILE, "cost": -1})
    with pytest.raises(InputError) as caught:
        read_aibrix(written(tmp_path, text))
    assert caught.value.line == 3


@pytest.mark.parametrize("text", ["", "[]", "[1]", "7", "{", '{"gpu": "x"}'])
def test_what_is_no_profile(tmp_path, text):
    with pytest.raises(InputError):
        read_aibrix(written(tmp_path, text))


def test_export_and_import_again(tmp_path, small_spec):
    choices = choices_of(small_spec)
    exported = from_choices(choices, created_unix_s=1.0)
    assert len({tuple(map(str, p.to_dict()["indexes"])) for p in exported}) == 1, "AIBrix wants one grid"
    again = read_aibrix(written(tmp_path, [p.to_dict() for p in exported]))
    for before, after, config in zip(exported, again, choices.configs, strict=True):
        assert after.deployment == config.name
        assert after.cost_usd_per_hour == config.instance.price_usd_per_hour
        np.testing.assert_array_equal(after.max_rate_rps, before.max_rate_rps)
    table = next(t for key, t in choices.profile.configs.items() if key.gpu == "L4")
    l4 = next(p for p in again if p.deployment == "L4")
    rows = [l4.input_tokens.tolist().index(size) for size in table.input_tokens]
    np.testing.assert_allclose(l4.max_rate_rps[rows], table.max_rate_rps)
    assert not l4.max_rate_rps[[i for i in range(len(l4.input_tokens)) if i not in rows]].any()


def test_a_plan_exports_what_its_workload_does(small_spec):
    from_workload = from_choices(choices_of(small_spec))
    planned = from_plan(plan_fleet(small_spec))
    assert [p.to_dict() for p in planned] == [p.to_dict() for p in from_workload]


def test_fleet_is_the_same_on_reimported_profiles(tmp_path, small_spec):
    """Out to AIBrix and back: rates and prices survive, so does the optimum."""
    from dataclasses import replace

    from melange import PriceChoice, ProfileChoice
    from melange.measurements.file import append_measurements

    exported = from_choices(choices_of(small_spec))
    rows = [(profile, profile.deployment, 1) for profile in exported]
    for profile, gpu, _ in rows:
        append_measurements(tmp_path / "m.jsonl", *measurements_of(profile, model="llama-2-7b", gpu=gpu))
    (tmp_path / "p.csv").write_text(prices_csv(rows))
    spec = replace(
        small_spec,
        profiles=ProfileChoice(files=(str(tmp_path / "m.jsonl"),), assume_slo=True),
        prices=PriceChoice(file=str(tmp_path / "p.csv")),
    )
    assert plan_fleet(spec).cost_usd_per_hour == pytest.approx(plan_fleet(small_spec).cost_usd_per_hour)
