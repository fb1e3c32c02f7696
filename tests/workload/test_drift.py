from __future__ import annotations

import numpy as np
import pytest

from melange.errors import InputError
from melange.slo import Slo
from melange.workload.drift import drift_of
from melange.workload.sizes import SizeGrid
from melange.workload.windows import Window
from melange.workload.workload import Workload

WEIGHT = np.array([[1.0], [10.0]])


def workload(*windows: tuple[float, float, float]) -> Workload:
    """Two buckets of 100 and 1,000 input tokens; windows are (length in s, small requests, large ones)."""
    starts = np.cumsum([0.0, *(length for length, _, _ in windows)])
    made = [
        Window(start_s=start, length_s=length, requests=np.array([[small], [large]]))
        for start, (length, small, large) in zip(starts, windows, strict=False)
    ]
    total = np.sum([window.requests for window in made], axis=0) if made else np.ones((2, 1))
    return Workload(
        name="w",
        grid=SizeGrid(input_edges_tokens=(100, 1000), output_edges_tokens=(50,)),
        rate_rps=total / (starts[-1] or 1.0),
        mean_input_tokens=[[100.0], [1000.0]],  # type: ignore[arg-type]
        mean_output_tokens=[[50.0], [50.0]],  # type: ignore[arg-type]
        mean_product_tokens2=[[5e3], [5e4]],  # type: ignore[arg-type]
        mean_cached_tokens=np.zeros((2, 1)),
        slo=Slo(),
        windows=tuple(made),
    )


def test_load_sizes_and_mix_by_hand() -> None:
    drift = drift_of(workload((10, 100, 0), (10, 60, 40)), WEIGHT)
    np.testing.assert_allclose(drift.rate_rps, [10, 10])
    np.testing.assert_allclose(drift.mean_input_tokens, [100, 460])
    np.testing.assert_allclose(drift.load, [100 / 280, 460 / 280])
    np.testing.assert_allclose(drift.load_per_request, drift.load)
    np.testing.assert_allclose(drift.variation, [0.2, 0.2])
    assert (drift.busiest, drift.load_at("peak"), drift.load_at("mean")) == (1, pytest.approx(460 / 280), 1)


def test_load_does_not_hang_on_the_rate_or_the_weights_unit() -> None:
    asked = workload((10, 100, 5), (20, 60, 40), (10, 3, 1))
    one, other = drift_of(asked, WEIGHT), drift_of(asked.at_rate(77), 5 * WEIGHT)
    np.testing.assert_allclose(one.load, other.load)
    assert (one.load * one.length_s).sum() / one.length_s.sum() == pytest.approx(1)
    assert other.rate_rps @ other.length_s == pytest.approx(77 * 40)


def test_p95_is_of_time_not_of_windows() -> None:
    drift = drift_of(workload((94, 94, 0), (3, 9, 0), (3, 12, 0)), WEIGHT)
    mean = 115 / 100
    assert drift.load_at("p95") == pytest.approx(3 / mean)
    assert drift_of(workload((95, 95, 0), (5, 50, 0)), WEIGHT).load_at("p95") == pytest.approx(1 / 1.45)


def test_a_window_without_requests_has_no_mix_and_no_load() -> None:
    drift = drift_of(workload((10, 100, 10), (10, 0, 0)), WEIGHT)
    assert drift.load.tolist() == [2, 0]
    assert np.isnan([drift.variation[1], drift.load_per_request[1], drift.mean_input_tokens[1]]).all()
    assert drift.variation[0] == 0


def test_chance_alone_shows_as_much_as_draws_from_one_mix_do() -> None:
    draws = np.random.default_rng(1).multinomial(400, [0.8, 0.2], size=300)
    drift = drift_of(workload(*((10, float(a), float(b)) for a, b in draws)), WEIGHT)
    assert drift.variation.mean() == pytest.approx(drift.variation_by_chance.mean(), rel=0.1)


def test_unknown_statistics_and_missing_windows_are_refused() -> None:
    with pytest.raises(InputError, match="'p99'; use mean, peak or p95"):
        drift_of(workload((1, 1, 1)), WEIGHT).load_at("p99")
    with pytest.raises(InputError, match="without windows has no peak"):
        drift_of(workload(), WEIGHT).load_at("peak")
