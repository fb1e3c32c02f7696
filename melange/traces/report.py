"""TraceReport: what a trace held, what of it a workload keeps, and why the rest was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from melange.errors import InputError

WARN_DROPPED_SHARE = 0.01
# Why a request is dropped, in the order in which the reasons are tried.
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "outside_window": "outside the window",
        "zero_input": "with zero input tokens",
        "zero_output": "with zero output tokens",
        "input_above_grid": "above the grid's last input edge",
        "output_above_grid": "above the grid's last output edge",
    }
)
SIZE_REASONS = tuple(reason for reason in REASONS if reason != "outside_window")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReport:
    """What a trace held and what of it the workload keeps.

    ``rows``: requests read. ``kept``: those inside the window and the grid. ``dropped``: reason -> requests, each under
    the first that applies of outside_window, zero_input, zero_output, input_above_grid, output_above_grid.
    ``rate_rps``: the workload's rate of kept requests. ``span_s``: from the first to the last arrival, cut to the
    window. ``interarrival_cv``: coefficient of variation of the times between kept requests (1 for Poisson).
    ``peak_to_mean``: most kept requests in a whole minute over the mean of the whole minutes. The last three are None
    where the trace does not tell them. Mean sizes are of kept requests; ``mean_cached_tokens`` is None where the trace
    tells no cached tokens.
    """

    rows: int
    kept: int
    dropped: Mapping[str, int]
    rate_rps: float
    mean_input_tokens: float
    mean_output_tokens: float
    mean_cached_tokens: float | None = None
    span_s: float | None = None
    interarrival_cv: float | None = None
    peak_to_mean: float | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if set(self.dropped) != set(REASONS) or self.kept + sum(self.dropped.values()) != self.rows:
            raise InputError(
                f"trace report: {self.kept} kept and {dict(self.dropped)} dropped do not make {self.rows} rows",
                fix=f"count every row once, under {', '.join(REASONS)}",
            )
        object.__setattr__(self, "dropped", MappingProxyType(dict(self.dropped)))

    @property
    def dropped_share(self) -> float:
        """Share of the window's requests that do not fit the grid."""
        lost = sum(self.dropped[reason] for reason in SIZE_REASONS)
        return lost / (lost + self.kept)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready; absent figures left out."""
        names = ("rows", "kept", "rate_rps", "span_s", "interarrival_cv", "peak_to_mean")
        means = ("mean_input_tokens", "mean_output_tokens", "mean_cached_tokens")
        figures = {name: getattr(self, name) for name in (*names, *means)}
        return {
            **{name: value for name, value in figures.items() if value is not None},
            "dropped": {reason: count for reason, count in self.dropped.items() if count},
            "dropped_share": self.dropped_share,
            "warnings": list(self.warnings),
        }


def describe_dropped(dropped: Mapping[str, int]) -> str:
    """Numbers and reasons in words: ``3 with zero output tokens, 12 above the grid's last input edge``."""
    return ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in dropped.items() if count)


def dropped_warning(kept: int, dropped: Mapping[str, int]) -> str | None:
    """A sentence where more than 1% of the requests in the window do not fit the grid."""
    lost = sum(dropped[reason] for reason in SIZE_REASONS)
    if lost <= WARN_DROPPED_SHARE * (lost + kept):
        return None
    return f"{lost / (lost + kept):.1%} of the requests are dropped: {describe_dropped(dropped)}"
