"""The sequential test, on replications whose distribution is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from melange.attainment.trial import ERROR, LONGER, LOOKS, RECHECKED, Trials, _error, promised
from melange.simulator.simulate import SimulationOptions

TARGET = 0.9
SPREAD = 0.02


@pytest.fixture
def trials(monkeypatch):
    """Trials of fleets whose long replications are drawn from a normal distribution around ``trials.mean``."""
    made = Trials(target=TARGET, options=SimulationOptions(requests=5000), clocks={})
    drawn = SimpleNamespace(
        confirm=lambda attempt=1: made.confirm(None, attempt), mean=TARGET, rng=np.random.default_rng(0), played=[]
    )

    def attainments(scenario, first, count):
        drawn.played.append(range(first, first + count))
        return drawn.rng.normal(drawn.mean, SPREAD, count).tolist()

    monkeypatch.setattr(Trials, "scenario", lambda self, plan: SimpleNamespace(requests=self.options.requests))
    monkeypatch.setattr("melange.attainment.trial.attainments_of", attainments)
    return drawn


def recheck(drawn) -> float:
    """A re-check's mean: replications 1/LONGER as long vary the more."""
    return float(drawn.rng.normal(drawn.mean, SPREAD * np.sqrt(LONGER / RECHECKED)))


def test_at_the_target_itself_a_promise_is_refused_but_for_the_error(trials):
    assert sum(trials.confirm().passed for _ in range(400)) <= 400 * ERROR


def test_what_is_clear_is_promised(trials):
    trials.mean = TARGET + 3 * SPREAD
    assert all(trials.confirm().passed for _ in range(50))


def test_rechecks_stand_although_a_search_takes_the_first_fleet_that_passes(trials, monkeypatch):
    # Each fleet a little better than the one before: the first to pass is barely good enough, and luckier than it is
    # good. By a bound on the long-run mean, one re-check in ten would deny such promises.
    def denied() -> bool:
        for attempt in range(1, 100):
            trials.mean = TARGET + 0.1 * (attempt - 1) * SPREAD
            if trials.confirm(attempt).passed:
                return recheck(trials) < TARGET
        raise AssertionError("nothing passes")

    assert np.mean([denied() for _ in range(300)]) <= ERROR


def test_what_is_out_of_reach_is_given_up_early(trials):
    trials.mean = TARGET - SPREAD
    played = [trials.confirm().replications for _ in range(50)]
    assert np.mean(played) < LOOKS[0]


def test_the_errors_of_all_looks_and_attempts_are_the_error():
    attempts = 10_000
    total = sum(_error(attempt) for attempt in range(1, attempts + 1)) * len(LOOKS)
    # 1/(1 x 2) + 1/(2 x 3) + ... + 1/(n (n + 1)) = 1 - 1/(n + 1)
    assert total == pytest.approx(ERROR * (1 - 1 / (attempts + 1)))


def test_confirming_replications_are_longer_than_was_asked(trials, monkeypatch):
    seen = []
    monkeypatch.setattr("melange.attainment.trial.promised", lambda values, error, counted: seen.append(counted) or 1.0)
    trials.confirm()
    assert set(seen) == {0.9 * LONGER * 5000}


def test_every_confirmation_plays_replications_of_its_own(trials):
    trials.mean = TARGET + 3 * SPREAD
    trials.confirm()
    numbers = [n for batch in trials.played for n in batch]
    assert numbers == list(range(1000, 1000 + LOOKS[0]))


def test_no_miss_at_all_promises_no_more_than_the_requests_played_can_show():
    # Rule of three: of n requests without a miss, at most 3/n miss with 95% confidence.
    assert promised([1.0] * 16, 0.05, 1000.0) == pytest.approx(1 - 2.9957 / 16_000, abs=1e-8)
    assert promised([1.0] * 16, 0.05, 1e9) == pytest.approx(1.0)


def test_the_bound_leaves_room_for_the_mean_and_for_the_re_check():
    # Mean 0.99, s = 0.01, n = 16: t(0.95, 15) = 1.753 from the tables, for either part.
    values = [0.98, 1.0] * 8
    s = 0.01 * np.sqrt(16 / 15)
    assert promised(values, 0.05, 1e9) == pytest.approx(0.99 - 1.7530 * s * (0.25 + np.sqrt(0.2)), abs=1e-5)


def test_what_reaches_the_target_by_too_little_is_undecided(trials):
    trials.mean = TARGET + 0.2 * SPREAD
    found = [trials.confirm() for _ in range(50)]
    assert sum(result.undecided for result in found) > 25
    assert all(result.undecided == (result.attainment >= TARGET) for result in found if not result.passed)
    assert not any(result.undecided for result in found if result.passed)
