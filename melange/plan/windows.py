"""PlanWindows: the windows that a fleet was planned for."""

from __future__ import annotations

from dataclasses import dataclass

from melange.files.shown import span_text


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWindow:
    """A window of the workload's time, and how full it makes the fleet.

    ``start_s`` is in seconds after the trace's first row, ``rate_rps`` the window's rate at the rate planned for.
    ``kept``: whether the fleet had to carry it. ``binding``: whether the program needed it; those that it did not are
    carried by the fleet that the others ask for. ``utilization``: the highest of a config in use, without headroom,
    with the shares that are best for the window; above 1 in one that is not kept and too much, None where it cannot be
    served at all or there is no fleet.
    """

    start_s: float
    length_s: float
    rate_rps: float
    kept: bool
    binding: bool
    utilization: float | None = None

    def describe(self) -> str:
        """``0:27:39 to 0:30:43``."""
        return span_text(self.start_s, self.length_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWindows:
    """What a fleet for many windows was asked to keep: counts common, shares free in each window.

    ``share`` of the windows that hold requests were to be kept, 1 for every one; those of the most load are left out,
    which another choice might undercut. ``mean_usd_per_hour``: the cheapest fleet for the mean load alone, None where
    there is none. ``windows`` are those that hold requests, in order of time.
    """

    share: float
    mean_usd_per_hour: float | None
    windows: tuple[PlanWindow, ...]

    @property
    def left_out(self) -> tuple[PlanWindow, ...]:
        return tuple(window for window in self.windows if not window.kept)

    @property
    def binding(self) -> tuple[PlanWindow, ...]:
        return tuple(window for window in self.windows if window.binding)

    def describe_use(self, cost_usd_per_hour: float | None) -> str:
        """``the windows keep it 45% to 98% utilized; the mean load alone takes $1.79/h, the windows +21.8%``."""
        parts = []
        used = [window.utilization for window in self.windows if window.kept and window.utilization is not None]
        if used:
            parts.append(f"the windows keep it {100 * min(used):.0f}% to {100 * max(used):.0f}% utilized")
        if cost_usd_per_hour is not None and self.mean_usd_per_hour is not None:
            more = cost_usd_per_hour / self.mean_usd_per_hour - 1
            parts.append(
                f"the mean load alone takes ${self.mean_usd_per_hour:.2f}/h ({100 * more:+.1f}% for the windows)"
            )
        return "; ".join(parts)

    def describe(self) -> str:
        """``planned for every one of 19 windows; the program needed 2 of them: 0:24:34 to 0:27:39, ...``."""
        count = len(self.windows)
        text = f"planned for every one of {count} windows"
        if self.left_out:
            names = ", ".join(window.describe() for window in self.left_out)
            text = (
                f"planned for {count - len(self.left_out)} of {count} windows, without those of the most load: "
                f"{names}; leaving out others might be cheaper"
            )
        if self.binding:
            names = ", ".join(window.describe() for window in self.binding)
            text += f"; decided by {names}: the others ask for nothing more"
        return text
