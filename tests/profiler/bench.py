"""A bench for the profiler's tests: a simulated engine in virtual time, which no busy machine can disturb."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from melange.profiler.budget import Budget
from melange.profiler.journal import Journal
from melange.profiler.load import Load, LoadRun, Size
from melange.profiler.loadgen import Stop, Tick
from melange.profiler.loadpoint import Subject
from melange.profiler.search import Capacity, SearchSettings
from melange.profiler.serving import Serving
from melange.profiler.session import Measure, profile
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.testing.simulated_engine import SimulatedEngine

KEY = ConfigKey("m", "g", 1, "bf16", "vllm")
SUBJECT = Subject(key=KEY)
SIZES = (Size(32, 16), Size(32, 64), Size(256, 16))
SETTINGS = SearchSettings(slo=Slo(tpot_s=0.02), resolution=1.4, requests=400, point_s=300)


class Bench:
    """A simulated engine whose loads advance a clock, and that can be pulled out from under a run."""

    def __init__(self, fail_after: int | None = None, engine: SimulatedEngine | None = None) -> None:
        self.engine, self.now, self.loads, self.fail_after = engine or SimulatedEngine(), 0.0, 0, fail_after

    def measure(self, load: Load, stop: Stop, tick: Tick) -> LoadRun:
        if self.fail_after is not None and self.loads >= self.fail_after:
            raise KeyboardInterrupt
        self.loads += 1
        run = self.engine.run(load, stop)
        self.now += run.elapsed_s
        return run

    def profile(
        self, path: Path, budget: Budget | None = None, settings: SearchSettings = SETTINGS, **options: object
    ) -> tuple[Capacity, ...]:
        with Journal(path, KEY) as journal:
            return profile(
                SIZES,
                settings,
                journal=journal,
                measure=self.measure,
                subject=SUBJECT,
                budget=budget or Budget(),
                check=lambda: None,
                **options,  # type: ignore[arg-type]
            )


def simulated(engine: SimulatedEngine | None = None) -> Callable[[Serving], Measure]:
    """Stands in for ``live_measure``: the server is asked what it is, but its loads run in virtual time."""
    engine = engine or SimulatedEngine()

    def measure(load: Load, stop: Stop, tick: Tick) -> LoadRun:
        run = engine.run(load, stop)
        tick(run)
        return run

    return lambda serving: measure
