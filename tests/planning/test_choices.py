from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import InputError, Measurement, Slo, profile_from
from melange.planning.choices import choose
from melange.planning.profile_source import load_profile
from melange.planning.spec import ServingChoice


@pytest.fixture
def profile(small_spec):
    return load_profile(small_spec)


def test_a_rate_for_every_bucket_with_demand_and_every_config(small_spec, profile):
    choices = choose(small_spec, profile)
    assert [bucket.label for bucket in choices.buckets] == ["100x100", "100x500", "1000x100"]
    assert choices.rate_rps.tolist() == [2.0, 1.0, 0.5]
    assert choices.load_tokens.tolist() == [[60, 50], [60, 250], [600, 50]]
    for c, config in enumerate(choices.configs):
        table = profile.configs[config.key]
        assert choices.max_rate_rps[:, c].tolist() == table.rate_at(*choices.load_tokens.T).tolist()
    # Under an SLO on means nothing may be late, so that no rate without a limit is looked up.
    assert np.isnan(choices.unlimited_rps).all()
    assert choices.late_rate_rps == pytest.approx(choices.max_rate_rps)
    with pytest.raises(ValueError, match="read-only"):
        choices.max_rate_rps[0, 0] = 1.0


def test_what_a_config_is_not_measured_for_is_said(small_spec):
    sizes = {"model": "llama-2-7b", "loop": "capacity", "achieved_rps": 1.0}
    points = [
        Measurement(**sizes, gpu=gpu, input_tokens=i, output_tokens=o)
        for gpu, inputs in (("L4", (50, 100)), ("H100", (50, 1000)))
        for i in inputs
        for o in (50, 500)
    ]
    choices = choose(small_spec, profile_from(points, Slo()))
    assert np.isnan(choices.max_rate_rps[2, choices.gpus.index("L4")])
    assert choices.late_rate_rps[2, choices.gpus.index("L4")] == 0
    assert "L4 is not measured for sizes 1000x100, so it serves none of them" in choices.warnings


def test_unknown_model(small_spec, profile):
    spec = replace(small_spec, workload=replace(small_spec.workload, model="llama-2-7"))
    with pytest.raises(InputError, match="did you mean 'llama-2-7b'"):
        choose(spec, profile)


def test_grid_mismatch_with_upper_edges(small_spec, profile):
    grid = replace(small_spec.workload.grid, input_edges_tokens=(110, 1000))
    spec = replace(small_spec, workload=replace(small_spec.workload, grid=grid, representative="upper_edge"))
    with pytest.raises(InputError, match="grid mismatch: the input edge 110"):
        choose(spec, profile)


def test_serving_choice_filters_configs(small_spec, profile):
    with pytest.raises(InputError, match="serving choice"):
        choose(replace(small_spec, serving=ServingChoice(tp=(2,))), profile)
