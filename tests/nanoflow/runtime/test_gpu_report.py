"""What 'melange nanoflow measure' computes from timings, and its whole course on a CPU with instruments that are faked.

No GPU was ever part of these tests: they show that the code runs and that its arithmetic is right, no speed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch

from melange.cli.nanoflow import nanoflow
from melange.errors import EngineError, InputError
from melange.nanoflow.operation_times import read_operation_times
from melange.nanoflow.pipeline import Pipeline, read_pipeline
from melange.nanoflow.runtime import cuda_timing
from melange.nanoflow.runtime.bench import BatchPlan, Bench, planned_batch
from melange.nanoflow.runtime.config import DecoderConfig
from melange.nanoflow.runtime.gpu_report import Instruments, measure
from melange.nanoflow.runtime.overlap_samples import (
    OverlapSample,
    TimedJob,
    interference_curve,
    overlap_performance,
    partition_for,
)
from melange.nanoflow.runtime.placement import Placement
from melange.nanoflow.runtime.report import Arm, GpuReport, render_markdown
from melange.perfmodel.interference import Interference, read_interference

CONFIG = DecoderConfig(
    name="tiny", layers=4, hidden=32, heads=4, kv_heads=2, head_size=8, intermediate=48, vocabulary=64
)
PLAN = BatchPlan(batch_tokens=24, decode_tokens=8, context_tokens=20)


def sample(gemm: float, other: float, sms: int | None = None) -> OverlapSample:
    return OverlapSample(gemm=gemm, other=other, sms=sms, how="test")


@given(
    first=st.floats(0.05, 1.0),
    second=st.floats(0.05, 1.0),
    work=st.tuples(st.floats(0.1, 10.0), st.floats(0.1, 10.0)),
    slower=st.floats(1.0, 8.0),
)
def test_performance_is_recovered_from_a_simulated_overlap(
    first: float, second: float, work: tuple[float, float], slower: float
) -> None:
    """Two jobs at known speeds while both run; the survivor goes on at its speed by itself, confined or not."""
    placed = (work[0], work[1] * slower)
    speeds = (first, min(second, 1 / slower))
    ends = [seconds / speed for seconds, speed in zip(work, speeds, strict=True)]
    both = min(ends)
    ended = [
        both + (1 - both * speed / seconds) * alone for seconds, speed, alone in zip(work, speeds, placed, strict=True)
    ]
    jobs = [TimedJob(alone_s=a, placed_s=p, ended_s=e) for a, p, e in zip(work, placed, ended, strict=True)]
    assert overlap_performance(jobs[0], jobs[1]) == pytest.approx(speeds, abs=1e-6)
    with pytest.raises(InputError, match="positive seconds"):
        TimedJob(alone_s=1.0, placed_s=1.0, ended_s=0.0)


def test_table_takes_the_best_for_each_share_and_lists_no_more_than_was_seen() -> None:
    samples = [sample(0.62, 0.75, 24), sample(0.85, 0.5, 8), sample(0.83, 0.4, 16), sample(0.3, 0.7), sample(0.05, 1.0)]
    assert interference_curve(samples) == ((0.2, 0.5), (0.4, 0.75))
    assert interference_curve([]) == ()
    assert partition_for(samples, 0.4) == 24
    assert partition_for(samples, 0.2) == 8
    assert partition_for(samples, 0.1) is None
    assert partition_for([sample(0.9, 0.9)], 0.5) is None, "an unconfined stream is no partition"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12))
def test_any_samples_make_a_valid_table(pairs: list[tuple[float, float]]) -> None:
    curve = interference_curve(sample(gemm, other) for gemm, other in pairs)
    assert Interference(gpu="g", source="s", memory=curve).memory == curve


class VirtualCuda:
    """Stands in for torch.cuda where only work takes time: each stream is a clock, kernels never disturb another."""

    class Stream:
        def __init__(self, slower: float = 1.0, priority: int = 0) -> None:
            self.slower, self.at = slower, 0.0

        def wait_event(self, event: Any) -> None:
            self.at = max(self.at, event.at)

        def wait_stream(self, other: Any) -> None:
            self.at = max(self.at, other.at)

    def __init__(self) -> None:
        self.main = self.current = self.Stream()
        world = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                self.at = 0.0

            def record(self, stream: Any = None) -> None:
                self.at = (stream or world.current).at

            def synchronize(self) -> None: ...

            def elapsed_time(self, end: Any) -> float:
                return 1000 * (end.at - self.at)

        self.Event = Event

    def work(self, seconds: float) -> None:
        self.current.at += seconds * self.current.slower

    def synchronize(self) -> None: ...

    def _sleep(self, cycles: int) -> None:
        self.current.at += cycles / 1e9

    def current_stream(self) -> Any:
        return self.current

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, device: int) -> Any:
        return SimpleNamespace(multi_processor_count=32)

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


@pytest.mark.parametrize("green_contexts", [True, False])
def test_samples_of_a_virtual_gpu_without_interference(monkeypatch: pytest.MonkeyPatch, green_contexts: bool) -> None:
    """Unconfined kernels reach their full speed; one confined to a quarter, half, three quarters reaches that share."""
    cuda = VirtualCuda()
    monkeypatch.setattr(cuda_timing, "cuda", cuda)

    def confine(sms: int) -> Any:
        if not green_contexts:
            raise EngineError("no green contexts")
        return None, cuda.Stream(slower=32 / sms)

    monkeypatch.setattr(cuda_timing, "confined_stream", confine)
    seconds = {"up_gate": 0.003, "decode_attention": 0.005}
    bench = SimpleNamespace(plan=PLAN, operation=lambda kind, start, end: lambda: cuda.work(seconds[kind]))
    samples, obstacle = cuda_timing.overlap_samples(bench)  # type: ignore[arg-type]
    reached = [(one.sms, round(one.gemm, 6), round(one.other, 6)) for one in samples]
    assert reached[:2] == [(None, 1, 1), (None, 1, 1)]
    assert reached[2:] == ([(8, 1, 0.25), (16, 1, 0.5), (24, 1, 0.75)] if green_contexts else [])
    assert (obstacle is None) == green_contexts


def cpu_timer(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def instruments(confine: Callable[[int], Any]) -> Instruments:
    samples = [sample(0.62, 0.8, 32), sample(0.9, 0.3, 8), sample(0.35, 0.9)]
    return Instruments(timer=cpu_timer, samples=lambda bench: (samples, None), confined_stream=confine, streams=dict)


def fixed_times(monkeypatch: pytest.MonkeyPatch, attention_s: float) -> None:
    """Operation times that make the search split, or not: a CPU's own would be noise."""
    seconds = {"decode_attention": attention_s, "prefill_attention": 1e-5}
    monkeypatch.setattr(
        Bench, "operation_s", lambda self, kind, a, b: seconds.get(kind, 1e-3) * (b - a) / PLAN.batch_tokens
    )


def run(confine: Callable[[int], Any]) -> GpuReport:
    placement = Placement(dtype=torch.float32, device=torch.device("cpu"))
    return measure(CONFIG, placement, PLAN, instruments(confine), gpu="a GPU", precision="fp32", time_limit_s=20.0)


def test_whole_course_with_a_split_that_pays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fixed_times(monkeypatch, attention_s=6e-3)
    monkeypatch.setattr(Bench, "layer_s", lambda self, pipeline, streams=None: 1e-3 * pipeline.nano_batches)
    report = run(lambda sms: (None, f"stream on {sms}"))
    assert report.pipeline.splits == (8, 24)
    assert [arm.splits for arm in report.arms] == [(24,), (8, 24), (8, 24), (8, 24)]
    assert report.arms[0].predicted_s == pytest.approx(report.pipeline.unsplit_s)
    assert report.arms[1].predicted_s == pytest.approx(report.arms[0].predicted_s), "linear times: splitting is free"
    assert report.arms[2].predicted_s == report.pipeline.stage2_s
    assert "confined to 32 multiprocessors" in report.arms[3].name
    assert all(arm.difference is not None and arm.difference < 1e-5 for arm in report.arms)
    report.write(tmp_path / "out")
    assert read_pipeline(tmp_path / "out" / "pipeline.json") == report.pipeline
    assert read_interference(tmp_path / "out" / "interference.yaml") == report.interference
    assert read_operation_times(tmp_path / "out" / "operation-times.yaml").points.keys() == report.times.points.keys()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["arms"][1]["splits"] == [8, 24]
    assert "| 8 + 16 |" in (tmp_path / "out" / "report.md").read_text()


def test_whole_course_where_nothing_can_be_confined_and_one_batch_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_times(monkeypatch, attention_s=1e-9)

    def cannot(sms: int) -> Any:
        raise EngineError("the driver has no green contexts")

    report = run(cannot)
    assert report.pipeline.nano_batches == 1
    assert "not to split" in report.notes[0]
    assert report.arms[2].predicted_s is None
    assert report.arms[3].measured_s is None
    assert "not run: the driver has no green contexts" in render_markdown(report)


def test_operations_are_timed_at_their_own_tokens() -> None:
    placement = Placement(dtype=torch.float32, device=torch.device("cpu"))
    bench = Bench.build(CONFIG, placement, PLAN, cpu_timer)
    times = bench.times(model="tiny", gpu="cpu", precision="fp32", source="a clock")
    counts = {kind: [tokens for tokens, _ in points] for kind, points in times.points.items()}
    assert counts["decode_attention"] == [2, 4, 6, 8]
    assert counts["prefill_attention"] == [4, 8, 12, 16]
    assert counts["kqv"] == [6, 8, 12, 16, 18, 24]
    assert all(seconds > 0 for points in times.points.values() for _, seconds in points)


def test_planned_batch_is_decodes_at_their_context_then_one_prompt() -> None:
    batch = planned_batch(PLAN, 64, seed=0)
    assert (batch.tokens, batch.decodes) == (24, 8)
    assert batch.lengths.tolist() == [20] * 8 + [16]
    assert len(set(batch.slots.tolist())) == 24
    with pytest.raises(InputError, match="some tokens decode"):
        BatchPlan(batch_tokens=8, decode_tokens=8, context_tokens=4)


def test_report_says_how_far_off_a_prediction_was() -> None:
    placement = Placement(dtype=torch.float32, device=torch.device("cpu"))
    bench = Bench.build(CONFIG, placement, PLAN, lambda work: 1e-3)
    times = bench.times(model="tiny", gpu="A|B", precision="fp32", source="fixed")
    arms = (
        Arm(name="one batch", splits=(24,), prediction="sum", predicted_s=2.2e-3, measured_s=2e-3, difference=0.0),
        Arm(name="overlapped", splits=(8, 24), prediction="stage II", predicted_s=1.2e-3, measured_s=1.6e-3),
    )
    text = render_markdown(
        GpuReport(
            facts={"GPU": "A|B"},
            times=times,
            samples=(sample(0.6, 0.8),),
            interference=Interference(gpu="A|B", source="s", memory=((0.4, 0.8),)),
            pipeline=Pipeline.unsplit(model="tiny", gpu="A|B", batch_tokens=24),
            arms=arms,
        )
    )
    assert "| one batch | 24 | 2.200 (sum) | 2.000 | +10% | 1.00x | 0.0e+00 |" in text
    assert "| overlapped | 8 + 16 | 1.200 (stage II) | 1.600 | -25% | 1.25x | - |" in text
    assert "A\\|B" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_one_clear_error_and_no_files(tmp_path: Path) -> None:
    result = CliRunner().invoke(nanoflow, ["measure", "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, InputError)
    assert "CUDA device 0 was asked for, 0 found" in str(result.exception)
    assert not (tmp_path / "out").exists()
