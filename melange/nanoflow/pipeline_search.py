"""The search for a NanoFlow pipeline: enumerate splits, stage I, stage II, and never worse than one batch.

Stage I finds the split with the least makespan as if kernels did not interfere; stage II gives that split's operations
their shares of the device under the interference table (arXiv 2408.12757, section 4.1). Where the result is no shorter
than one unsplit batch, run operation by operation, the answer is that one batch: every nano-batch reads the weights
again, and on cards with little bandwidth that costs more than overlap gains. All times are predictions.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from melange.errors import InputError
from melange.nanoflow.nano_graph import RESOURCE, NanoGraph
from melange.nanoflow.operation_times import OperationTimes
from melange.nanoflow.pipeline import NanoOperation, Pipeline
from melange.nanoflow.pipeline_milp import Schedule, SplitSolution, solve_split
from melange.perfmodel.interference import Curve, Interference, Resource
from melange.perfmodel.operations import layer_kinds

MAX_NANO_BATCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One split: its lower bound, and the outcome of each stage that was run on it."""

    graph: NanoGraph
    stage1: SplitSolution | None = None
    stage2: SplitSolution | None = None

    @property
    def splits(self) -> tuple[int, ...]:
        return self.graph.splits

    @property
    def preference(self) -> tuple[float, int, float]:
        """Shortest possible period first; among equals fewer nano-operations, then the shorter way through a layer."""
        longest = max(sum(self.graph.tasks[i].best_s for i in loop) for loop in self.graph.loops())
        return round(self.graph.least_period_s(), 12), len(self.graph.tasks), longest


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSearch:
    """The pipeline found and how: every split considered, with what was proven about it.

    ``pipeline.gap`` is the proven gap of stage II for the splits it was run on; ``proven`` says whether all runs
    finished within ``time_limit_s``. ``stage1_s`` and ``stage2_s`` are the wall times that the stages took.
    """

    pipeline: Pipeline
    trials: tuple[Trial, ...]
    stage1_wall_s: float
    stage2_wall_s: float
    time_limit_s: float

    @property
    def proven(self) -> bool:
        return self.pipeline.gap is not None and self.pipeline.gap <= 1e-4

    @property
    def predicted_speedup(self) -> float:
        """Predicted layer time of one unsplit batch over that of the pipeline; 1 where the answer is one batch."""
        assert self.pipeline.unsplit_s is not None
        assert self.pipeline.stage2_s is not None
        return self.pipeline.unsplit_s / self.pipeline.stage2_s


def search_pipeline(
    times: OperationTimes,
    interference: Interference,
    *,
    batch_tokens: int,
    decode_tokens: int,
    nano_batches: int = 2,
    quantum_tokens: int = 128,
    every_split: bool = False,
    time_limit_s: float = 60.0,
) -> PipelineSearch:
    """Search splits into up to ``nano_batches``, ending at multiples of ``quantum_tokens`` or where decoding ends.

    Stage II runs on stage I's best split or, with ``every_split``, on all splits that could still win. Raises
    InputError for figures that cannot be.
    """
    if not 2 <= nano_batches <= MAX_NANO_BATCHES:
        raise InputError(f"nano_batches is {nano_batches}", fix=f"give 2 to {MAX_NANO_BATCHES}")
    if quantum_tokens < 1 or not time_limit_s > 0:
        raise InputError(
            f"quantum_tokens is {quantum_tokens}, time_limit_s {time_limit_s}", fix="give positive figures"
        )
    if not 0 <= decode_tokens <= batch_tokens or batch_tokens < 1:
        raise InputError(f"{decode_tokens} of {batch_tokens} tokens decode", fix="decode tokens are part of the batch")
    unsplit_s = NanoGraph.of(times, splits=(batch_tokens,), decode_tokens=decode_tokens).serial_s()
    deadline = time.perf_counter() + time_limit_s
    began = time.perf_counter()
    graphs = (
        NanoGraph.of(times, splits=splits, decode_tokens=decode_tokens)
        for splits in candidate_splits(batch_tokens, decode_tokens, nano_batches, quantum_tokens)
    )
    trials = sorted((Trial(graph=graph) for graph in graphs), key=lambda trial: trial.preference)
    trials = _stage1(trials, unsplit_s, deadline)
    middle = time.perf_counter()
    curves = interference.curves(collectives=times.tp > 1)
    trials = _stage2(trials, curves, unsplit_s, deadline, every_split=every_split)
    return PipelineSearch(
        pipeline=_pipeline(times, interference, trials, batch_tokens, decode_tokens, unsplit_s),
        trials=tuple(trials),
        stage1_wall_s=middle - began,
        stage2_wall_s=time.perf_counter() - middle,
        time_limit_s=time_limit_s,
    )


def candidate_splits(
    batch_tokens: int, decode_tokens: int, nano_batches: int, quantum_tokens: int
) -> Iterator[tuple[int, ...]]:
    """Ends of 2 to ``nano_batches`` nano-batches, at multiples of the quantum or at the end of the decode tokens."""
    inner = {*range(quantum_tokens, batch_tokens, quantum_tokens), decode_tokens} - {0, batch_tokens}
    for cuts in range(1, nano_batches):
        for ends in itertools.combinations(sorted(inner), cuts):
            yield (*ends, batch_tokens)


def _stage1(trials: list[Trial], unsplit_s: float, deadline: float) -> list[Trial]:
    """Solve splits, most promising first, until no other can be shorter than the best found."""
    best_s, done = unsplit_s, []
    for trial in trials:
        if trial.graph.least_period_s() >= best_s * (1 - 1e-9):
            done.append(trial)
            continue
        outcome = solve_split(trial.graph, cutoff_s=best_s, time_limit_s=_left(deadline))
        best_s = min(best_s, outcome.period_s)
        done.append(replace(trial, stage1=outcome))
    return done


def _stage2(
    trials: list[Trial], curves: Mapping[Resource, Curve], unsplit_s: float, deadline: float, *, every_split: bool
) -> list[Trial]:
    """Give stage I's best split its shares, then every other split that could still be shorter, if asked."""
    found = [trial for trial in trials if trial.stage1 is not None and trial.stage1.schedule is not None]
    chosen = min(found, key=lambda trial: trial.stage1.period_s if trial.stage1 else math.inf, default=None)
    best_s, done = unsplit_s, {}
    order = sorted(trials, key=lambda trial: trial is not chosen)
    for trial in order:
        if trial is chosen or (every_split and trial.graph.least_period_s() < best_s * (1 - 1e-9)):
            outcome = _shared(trial, curves, best_s, deadline)
            best_s = min(best_s, outcome.period_s)
            done[trial.splits] = replace(trial, stage2=outcome)
    return [done.get(trial.splits, trial) for trial in trials]


def _shared(trial: Trial, curves: Mapping[Resource, Curve], cutoff_s: float, deadline: float) -> SplitSolution:
    """Stage II of one split: in stage I's order first, whose period then cuts off most of the whole program."""
    if trial.stage1 is None or trial.stage1.schedule is None:
        return solve_split(trial.graph, curves, cutoff_s=cutoff_s, time_limit_s=_left(deadline))
    order = trial.stage1.schedule
    kept = solve_split(trial.graph, curves, cutoff_s=cutoff_s, time_limit_s=_left(deadline) / 2, order=order)
    free = solve_split(trial.graph, curves, cutoff_s=kept.period_s, time_limit_s=_left(deadline))
    if free.schedule is not None:
        return free
    return replace(kept, bound_s=min(free.bound_s, kept.period_s), solve_s=kept.solve_s + free.solve_s)


def _pipeline(
    times: OperationTimes,
    interference: Interference,
    trials: list[Trial],
    batch_tokens: int,
    decode_tokens: int,
    unsplit_s: float,
) -> Pipeline:
    second = [trial.stage2 for trial in trials if trial.stage2 is not None]
    first = [trial.stage1.period_s for trial in trials if trial.stage1 is not None and trial.stage1.schedule]
    schedules = [outcome.schedule for outcome in second if outcome.schedule is not None]
    best = min(schedules, key=lambda schedule: schedule.period_s, default=None)
    if best is not None and best.period_s >= unsplit_s * (1 - 1e-9):
        best = None
    period_s = unsplit_s if best is None else best.period_s
    unfinished = [trial.stage1 for trial in trials if trial.stage1 is not None and trial.stage1.timed_out]
    bound_s = min((outcome.bound_s for outcome in (*second, *unfinished)), default=period_s)
    plain = Pipeline.unsplit(model=times.model, gpu=times.gpu, batch_tokens=batch_tokens, tp=times.tp)
    return replace(
        plain,
        splits=plain.splits if best is None else best.graph.splits,
        operations=plain.operations if best is None else tuple(_operations(best, times.tp)),
        decode_tokens=decode_tokens,
        context_tokens=times.context_tokens,
        unsplit_s=unsplit_s,
        stage1_s=min(first, default=unsplit_s),
        stage2_s=period_s,
        gap=max(0.0, (period_s - bound_s) / period_s),
        provenance={
            "times": times.source,
            "interference": f"{interference.source} ({interference.gpu})",
            "label": "predicted from operation times and an interference table; not measured as a whole",
        },
    )


def _operations(schedule: Schedule, tp: int) -> list[NanoOperation]:
    """The schedule as the operations of a pipeline, in the order in which they start.

    Attention that has no tokens of its sort in a nano-batch stays listed, taking no time, just before its O.
    """
    tasks = schedule.graph.tasks
    ends = schedule.graph.splits
    rows: list[tuple[float, int, NanoOperation]] = []
    for start, end in zip((0, *ends[:-1]), ends, strict=True):
        mine = {task.kind: i for i, task in enumerate(tasks) if start <= task.start_token and task.end_token <= end}
        deepest = max(schedule.lags[i] for i in mine.values())
        for rank, kind in enumerate(layer_kinds(tp)):
            i = mine.get(kind)
            at = mine["o"] if i is None else i
            operation = NanoOperation(
                kind=kind,
                start_token=start,
                end_token=end,
                stream=RESOURCE[kind],
                share=1.0 if i is None else schedule.shares[i],
                layer_offset=deepest - schedule.lags[at],
                start_s=schedule.starts_s[at],
                duration_s=0.0 if i is None else schedule.durations_s[i],
            )
            rows.append((schedule.starts_s[at], rank, operation))
    return [operation for _, _, operation in sorted(rows, key=lambda row: row[:2])]


def _left(deadline: float) -> float:
    return max(deadline - time.perf_counter(), 0.1)
