"""No rate rises when the SLO tightens: random load points and SLOs, the issue's case, shipped profiles, estimates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melange.capacity.profile import ConfigProfile, profile_from, profile_sets, read_profile_set
from melange.capacity.verdict import judge
from melange.catalog.hardware import load_catalog
from melange.measurements.file import read_measurements
from melange.measurements.measurement import LatencyStats, Measurement
from melange.perfmodel.estimate import load_points, max_rates_rps
from melange.perfmodel.hardware import ModelledEngine
from melange.serving.engine_settings import default_settings
from melange.slo import METRICS, Slo

BETTER = {"fail": 0, "undecided": 1, "pass": 2}
LIMITS_S = {"tpot": (0.01, 0.06), "ttft": (0.02, 0.4), "e2e": (0.3, 3.0)}


@st.composite
def loads(draw: st.DrawFn) -> list[Measurement]:
    """Load points of one size, as many tools leave them: sampled or stated, closed or open, some of them broken."""
    return [draw(load()) for _ in range(draw(st.integers(1, 7)))]


@st.composite
def load(draw: st.DrawFn) -> Measurement:
    """One load point; latencies rise with the rate on the whole, and single ones contradict it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rate, samples = draw(st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0, 8.0])), draw(st.sampled_from([5, 20, 130, 300]))
    closed, sampled = draw(st.booleans()), draw(st.booleans())
    ttft, e2e, tokens = _latencies(rng, rate, samples)
    point = Measurement(
        model="m", gpu="L4", input_tokens=128, output_tokens=32, achieved_rps=rate * draw(st.sampled_from([1.0, 0.95])),
        samples=samples, failures=draw(st.sampled_from([0, 0, 1, 9])), duration_s=draw(st.sampled_from([20.0, 400.0])),
        ttft_s=_stats(ttft), e2e_s=_stats(e2e), tpot_decode_s=_stats((e2e - ttft) / 31),
        tpot_e2e_per_token_s=_stats(e2e / 32), confidence=draw(st.sampled_from([None, 0.9, 0.99])),
        queue_growth_rps=0.0, queue_growth_low_rps=-0.01, queue_growth_high_rps=0.01,
        saturated=draw(st.integers(0, 9)) == 0,
        valid=draw(st.integers(0, 9)) > 0,
    )  # fmt: skip
    if closed:
        point = replace(point, loop="closed", concurrency=float(draw(st.sampled_from([1, 4, 16]))))
    else:
        point = replace(point, loop="open", offered_rps=rate)
    if not sampled:
        return point
    return replace(
        point, sample_ttft_s=tuple(ttft), sample_e2e_s=tuple(e2e), sample_output_tokens=tuple(int(n) for n in tokens)
    )


def _latencies(rng: np.random.Generator, rate: float, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TTFT, latency and tokens of n requests, whose lateness comes in clusters."""
    clusters = np.repeat(rng.exponential(0.02 * rate, n // 5 + 1), 5)[:n]
    ttft = np.round(0.02 + clusters * rng.uniform(0, 1) + rng.exponential(0.01, n), 3)
    tokens = np.where(rng.uniform(size=n) < 0.1, 1, 32)
    steps = np.maximum(tokens - 1, 0) * (0.012 + 0.004 * rate * rng.uniform(0.5, 1.5) + clusters / 40)
    return ttft, np.round(ttft + steps, 3), tokens


def _stats(values: np.ndarray) -> LatencyStats:
    p50, p90, p95, p99 = (float(q) for q in np.quantile(values, (0.5, 0.9, 0.95, 0.99)))
    return LatencyStats(mean=float(values.mean()), p50=p50, p90=p90, p95=p95, p99=p99, mean_upper=None)


@st.composite
def slos(draw: st.DrawFn) -> tuple[Slo, Slo]:
    """An SLO and one that is tighter in a few respects."""
    names = draw(st.lists(st.sampled_from(METRICS), unique=True, max_size=3))
    limits = {name: draw(st.floats(*LIMITS_S[name])) for name in names}
    definition = draw(st.sampled_from(["decode", "e2e_per_token"]))
    statistic = draw(st.sampled_from(["mean", "attainment", "percentiles"])) if names else "mean"
    shares = {name: draw(st.floats(0.3, 0.995)) for name in names}
    loose = _slo(definition, statistic, limits, shares)
    tighter = {name: limit * draw(st.sampled_from([1.0, 0.99, 0.8, 0.5])) for name, limit in limits.items()}
    if statistic == "mean" and not names:
        statistic = draw(st.sampled_from(["mean", "attainment", "percentiles"]))
    more = draw(st.lists(st.sampled_from([name for name in METRICS if name not in names] or names), unique=True))
    tighter |= {name: draw(st.floats(*LIMITS_S[name])) for name in more if name not in names}
    closer = {
        name: share + (0.999 - share) * draw(st.sampled_from([0.0, 0.02, 0.5]))
        for name, share in ({name: draw(st.floats(0.3, 0.995)) for name in tighter} | shares).items()
    }
    if statistic == "percentiles" and draw(st.booleans()) and tighter:  # a joint promise of as much is tighter, too
        statistic, closer = "attainment", dict.fromkeys(closer, max(closer.values()))
    if not tighter:
        statistic = "mean"
    return loose, _slo(definition, statistic, tighter, closer)


def _slo(definition: str, statistic: str, limits: dict[str, float], shares: dict[str, float]) -> Slo:
    values: dict[str, object] = {f"{name}_s": limit for name, limit in limits.items()}
    if statistic == "attainment":
        values["attainment"] = max(shares.values())
    if statistic == "percentiles":
        values |= {f"{name}_quantile": shares[name] for name in limits}
    return Slo(tpot_definition=definition, **values)  # type: ignore[arg-type]


def no_higher(tight: ConfigProfile, loose: ConfigProfile) -> None:
    """Both ends, an unknown lower one as 0 and an unknown upper one as infinite, and the band where both have one."""
    assert (np.nan_to_num(tight.max_rate_rps) <= np.nan_to_num(loose.max_rate_rps) * (1 + 1e-12)).all()
    assert (_inf(tight.next_failing_rps) <= _inf(loose.next_failing_rps)).all()
    for name in ("low_rps", "high_rps"):
        ours, theirs = getattr(tight, name), getattr(loose, name)
        assert not (ours > theirs * (1 + 1e-12)).any()


def _inf(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=np.inf)


def profiles(points: Iterable[Measurement], slo: Slo) -> list[ConfigProfile]:
    return list(profile_from(points, slo, assume_slo=True).configs.values())


@settings(max_examples=150)
@given(loads(), slos())
def test_no_rate_rises_and_no_verdict_gets_better(points: Sequence[Measurement], pair: tuple[Slo, Slo]) -> None:
    loose, tight = pair
    assert tight.is_as_tight_as(loose)
    for point in points:
        assert BETTER[judge(point, tight)] <= BETTER[judge(point, loose)]
    for ours, theirs in zip(profiles(points, tight), profiles(points, loose), strict=True):
        no_higher(ours, theirs)


def ladder() -> list[Slo]:
    """SLOs of every kind, each kind from loose to tight in small steps."""
    found = [Slo()]
    for factor in np.geomspace(40.0, 0.02, 16):
        ttft, tpot = 0.5 * float(factor), 0.05 * float(factor)
        found += [Slo(ttft_s=ttft), Slo(tpot_s=tpot), Slo(tpot_s=tpot, tpot_definition="e2e_per_token")]
        found += [Slo(ttft_s=ttft, tpot_s=tpot), Slo(e2e_s=10 * float(factor))]
        for share in (0.5, 0.9, 0.99):
            found += [Slo(ttft_s=ttft, attainment=share), Slo(ttft_s=ttft, tpot_s=tpot, attainment=share)]
            found.append(Slo(ttft_s=ttft, tpot_s=tpot, ttft_quantile=share, tpot_quantile=share))
            found.append(Slo(tpot_s=tpot, attainment=share))
    return found


def neighbours(found: Sequence[Slo]) -> list[tuple[Slo, Slo]]:
    """(tight, loose): every SLO with the next ones before it that it is as tight as."""
    pairs = []
    for n, tight in enumerate(found):
        looser = [slo for slo in found[max(0, n - 40) : n] if tight.is_as_tight_as(slo)]
        pairs += [(tight, loose) for loose in [*looser, Slo()]]
    return pairs


@pytest.fixture(scope="module")
def issue_case(shared: Path) -> Sequence[Measurement]:
    return read_measurements(shared / "cases/show-not-monotone.jsonl").points


@pytest.mark.parametrize(
    ("tight", "loose"),
    [
        (Slo(ttft_s=0.020), Slo(ttft_s=0.025)),
        (Slo(tpot_s=0.035, attainment=0.5), Slo(tpot_s=0.040, attainment=0.5)),
    ],
)
def test_the_pairs_that_the_issue_names(issue_case: Sequence[Measurement], tight: Slo, loose: Slo) -> None:
    for ours, theirs in zip(profiles(issue_case, tight), profiles(issue_case, loose), strict=True):
        no_higher(ours, theirs)


def never_rises(points: Sequence[Measurement]) -> None:
    found = ladder()
    shown = {slo: profiles(points, slo) for slo in found}
    pairs = neighbours(found)
    assert len(pairs) > 200
    for tight, loose in pairs:
        for ours, theirs in zip(shown[tight], shown[loose], strict=True):
            no_higher(ours, theirs)


def test_the_issue_s_load_points_at_every_slo(issue_case: Sequence[Measurement]) -> None:
    never_rises(issue_case)


@pytest.mark.parametrize("name", profile_sets())
def test_shipped_load_points_at_every_slo(name: str) -> None:
    never_rises([point for file in read_profile_set(name) for point in file.points])


MODELLED = [
    ModelledEngine(
        model=load_catalog().model(model),
        gpu=load_catalog().gpu(gpu),
        tp=tp,
        precision=precision,
        settings=default_settings(load_catalog().gpu(gpu), engine),
    )
    for model, gpu, tp, precision, engine in (
        ("llama-3.1-8b", "L4", 1, "fp8", "vllm"),
        ("llama-3.1-8b", "H100", 1, "bf16", "vllm"),
        ("llama-3.1-70b", "A100-80GB", 4, "bf16", "vllm"),
    )
]
SIZES = np.meshgrid([50.0, 700.0, 6000.0], [1.0, 40.0, 900.0], indexing="ij")


def test_estimated_load_points_at_every_slo() -> None:
    never_rises(load_points(MODELLED[0], [100, 2000], [1, 60]))


@pytest.mark.parametrize("modelled", MODELLED, ids=lambda modelled: modelled.describe())
def test_estimated_rates_at_every_slo(modelled: ModelledEngine) -> None:
    found = ladder()
    rates = {slo: max_rates_rps(modelled, slo, *SIZES) for slo in {*found, Slo()}}
    for tight, loose in neighbours(found):
        assert (rates[tight] <= rates[loose] * (1 + 1e-9)).all(), f"{tight.describe()} against {loose.describe()}"
