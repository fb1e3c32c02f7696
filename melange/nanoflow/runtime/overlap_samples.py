"""From two kernels timed alone and together to an interference table; arithmetic only, without torch.

NanoFlow profiles interference pairwise (arXiv 2408.12757, section 4.1.2): while a GEMM and another kernel run at once,
each reaches some share of its own speed. A GEMM that keeps 1 - R has given up R, and P(R) is the most that the other
kernel was then seen to reach.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from melange.errors import InputError
from melange.perfmodel.interference import Curve

TABLE_SHARES = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapSample:
    """One pair's performance while both ran, each as a share of its own speed alone.

    ``sms`` is the number of multiprocessors that the other kernel was confined to, None where it was not; ``how`` says
    in words what was varied.
    """

    gemm: float
    other: float
    sms: int | None
    how: str

    @property
    def given_up(self) -> float:
        """R, the share of its performance that the GEMM lost."""
        return 1.0 - self.gemm


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedJob:
    """One of two jobs that were run together, all in seconds.

    ``alone_s``: how long it takes with the whole device. ``placed_s``: how long by itself where it ran, which is longer
    for a stream confined to a part. ``ended_s``: when it ended, both having begun at 0.
    """

    alone_s: float
    placed_s: float
    ended_s: float

    def __post_init__(self) -> None:
        if min(self.alone_s, self.placed_s, self.ended_s) <= 0:
            raise InputError(f"a job with times {self}", fix="give positive seconds")


def overlap_performance(first: TimedJob, second: TimedJob) -> tuple[float, float]:
    """Each job's speed while both ran, as a share of its speed alone on the device.

    The one that ends last runs by itself once the other has ended; what it does then does not count.
    """
    both_s = min(first.ended_s, second.ended_s)
    reached = []
    for job in (first, second):
        done = 1.0 - (job.ended_s - both_s) / job.placed_s
        reached.append(min(max(done * job.alone_s / both_s, 0.0), 1.0))
    return reached[0], reached[1]


def interference_curve(samples: Iterable[OverlapSample]) -> Curve:
    """Ascending (R, P(R)) at tenths of R: the best that any sample reached for no more than R of the GEMM.

    A share at which nothing was seen to run is left out, and so is one that adds nothing to the share before it.
    """
    known = list(samples)
    curve: list[tuple[float, float]] = []
    for share in TABLE_SHARES:
        reached = max((sample.other for sample in known if sample.given_up <= share + 1e-9), default=0.0)
        if reached > (curve[-1][1] if curve else 0.0):
            curve.append((share, min(reached, 1.0)))
    return tuple(curve)


def partition_for(samples: Iterable[OverlapSample], share: float) -> int | None:
    """Multiprocessors of the confined sample that did best for no more than ``share`` of the GEMM; None if none did."""
    fit = [sample for sample in samples if sample.sms is not None and sample.given_up <= share + 1e-9]
    return max(fit, key=lambda sample: sample.other).sms if fit else None
