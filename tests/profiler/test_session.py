"""A whole run: durable, resumable, bounded, and clear about what goes wrong."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from melange.errors import EngineError, InputError
from melange.measurements.file import Header, read_measurements, record_line
from melange.measurements.measurement import Measurement
from melange.profiler.budget import Budget
from melange.profiler.journal import Journal
from melange.profiler.load import Load, LoadRun, Size
from melange.profiler.loadgen import Stop, Tick
from melange.profiler.loadpoint import Subject
from melange.profiler.runner import RunRequest, estimate, profile_engine
from melange.profiler.search import Capacity, SearchSettings
from melange.profiler.serving import found_precision
from melange.profiler.session import Progress, profile
from melange.report.measurements import render_estimate
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.testing.fault_server import FaultServer
from melange.testing.simulated_engine import SimulatedEngine

KEY = ConfigKey("m", "g", 1, "bf16", "vllm")
SIZES = (Size(32, 16), Size(32, 64), Size(256, 16))
SETTINGS = SearchSettings(slo=Slo(tpot_s=0.02), resolution=1.4, requests=400, point_s=300)


class Bench:
    """A simulated engine whose loads advance a clock, and that can be pulled out from under a run."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.engine, self.now, self.loads, self.fail_after = SimulatedEngine(), 0.0, 0, fail_after

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
                subject=Subject(key=KEY),
                budget=budget or Budget(),
                check=lambda: None,
                **options,  # type: ignore[arg-type]
            )


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = Bench()
    expected = whole.profile(tmp_path / "whole.jsonl")
    assert all(found.low_rps > 0 and found.width < 1.6 for found in expected)
    for cut in (1, 4, 7):
        path = tmp_path / f"cut{cut}.jsonl"
        first = Bench(fail_after=cut)
        with pytest.raises(KeyboardInterrupt):
            first.profile(path)
        with path.open("ab") as file:
            file.write(b'{"record": "point", "model": "m", "inp')  # what a kill -9 leaves
        second = Bench()
        assert second.profile(path) == expected
        warm_ups = 1
        assert first.loads + second.loads == whole.loads + warm_ups
        assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert Bench().profile(tmp_path / "whole.jsonl") == expected


def test_a_finished_run_measures_nothing(tmp_path: Path) -> None:
    Bench().profile(tmp_path / "a.jsonl")
    again = Bench()
    again.profile(tmp_path / "a.jsonl")
    assert again.loads == 0


def test_another_slo_on_the_same_file_measures_only_what_it_still_needs(tmp_path: Path) -> None:
    """Its Poisson loads have an allowance of their own, however many the first SLO took."""
    path, other = tmp_path / "a.jsonl", replace(SETTINGS, slo=Slo(tpot_s=0.03), requests=1000)
    Bench().profile(path, settings=replace(SETTINGS, resolution=1.02))  # censored after all the loads it may take
    opened = [p for p in read_measurements(path).points if p.loop == "open" and p.output_tokens == 64]
    assert len(opened) >= SETTINGS.open_points
    more, alone = Bench(), Bench()
    found = more.profile(path, settings=other)
    alone.profile(tmp_path / "b.jsonl", settings=other)
    assert 0 < more.loads < alone.loads
    assert all(c.status == "bracketed" for c in found), [c.describe() for c in found]
    again = Bench()
    assert again.profile(path, settings=other) == found
    assert again.loads == 0


def test_a_budget_bounds_the_time_and_leaves_intervals(tmp_path: Path) -> None:
    bench = Bench()
    full = Bench()
    full.profile(tmp_path / "full.jsonl")
    limit = full.now * 0.4
    found = bench.profile(tmp_path / "a.jsonl", Budget(limit_s=limit, clock=lambda: bench.now))
    assert bench.now <= limit * 1.1
    assert any(c.status == "open" for c in found)
    assert len({p.input_tokens * 1000 + p.output_tokens for p in read_measurements(tmp_path / "a.jsonl").points}) == 3


def test_dollars_are_counted_and_need_a_price() -> None:
    with pytest.raises(InputError, match="--usd-per-hour"):
        Budget(limit_usd=1.0)
    budget = Budget(limit_usd=1.0, usd_per_hour=2.0, clock=lambda: 900.0, began_s=0.0)
    assert budget.spent_usd == pytest.approx(0.5)
    assert budget.left_s == pytest.approx(900.0)


def test_sizes_beyond_the_context_are_zero_and_never_sent(tmp_path: Path) -> None:
    bench = Bench()
    found = bench.profile(tmp_path / "a.jsonl", max_model_len=100)
    assert [c.status for c in found] == ["bracketed", "bracketed", "does not fit"]
    assert found[2].high_rps == 0
    points = read_measurements(tmp_path / "a.jsonl").points
    assert [p.loop for p in points if p.input_tokens == 256] == ["capacity"]


def test_neighbours_shorten_the_ladder(tmp_path: Path) -> None:
    Bench().profile(tmp_path / "a.jsonl")
    points = read_measurements(tmp_path / "a.jsonl").points
    rungs = {size: sum(p.loop == "closed" and p.input_tokens == size.input_tokens for p in points) for size in SIZES}
    first = sum(p.loop == "closed" for p in points if (p.input_tokens, p.output_tokens) == (32, 16))
    second = sum(p.loop == "closed" for p in points if (p.input_tokens, p.output_tokens) == (32, 64))
    assert second <= first, rungs


def test_a_second_run_on_one_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path, KEY):
        code = f"from melange.profiler.journal import Journal; Journal({str(path)!r}, None).__enter__()"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another profile run is writing it" in other.stderr
    with Journal(path, KEY):
        pass


def test_an_unwritable_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write it"), Journal(tmp_path / "no" / "a.jsonl", KEY):
        pass
    if os.geteuid() != 0:
        (tmp_path / "a.jsonl").touch(mode=0o444)
        with pytest.raises(InputError, match="cannot write it"), Journal(tmp_path / "a.jsonl", KEY):
            pass


def test_damage_elsewhere_than_at_the_end_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("not json\n" + record_line(Header(facts={"a": 1})))
    with pytest.raises(InputError, match=r"a\.jsonl:1"), Journal(path, KEY):
        pass
    assert path.read_text().startswith("not json\n")


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    point = Measurement(model="m", gpu="g", input_tokens=1, output_tokens=1, achieved_rps=1.0)
    with Journal(path, KEY) as journal:
        journal.append(point)
        size = path.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(InputError, match="are kept"):
                journal.append(point)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert path.stat().st_size == size
        journal.append(point)
    assert len(read_measurements(path).points) == 2


def request(server: FaultServer, path: Path, **changes: object) -> RunRequest:
    values: dict[str, object] = {
        "url": server.url,
        "model": "fault",
        "gpu": "L4",
        "slo": Slo(tpot_s=0.05),
        "input_tokens": (16,),
        "output_tokens": (8,),
        "point_seconds": 1.5,
        "requests": 100,
        "max_concurrency": 8,
        "resolution": 2.0,
        "output": str(path),
    }
    return RunRequest(**{**values, **changes})  # type: ignore[arg-type]


def test_attached_server_end_to_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with FaultServer(slots=4, gap_s=0.004) as server:
        (found,) = profile_engine(request(server, tmp_path / "a.jsonl"), report=seen.append)
    measured = read_measurements(tmp_path / "a.jsonl")
    facts = measured.headers[0].facts
    assert facts["engine_version"] == "fault-1"
    assert (facts["engine"], facts["gpu"]) == ("vllm", "L4")
    assert facts["slo"] == Slo(tpot_s=0.05).to_dict()
    assert found.size == Size(16, 8)
    assert {p.loop for p in measured.points} >= {"closed"}
    assert all(p.extra.get("client") for p in measured.points)
    assert any(p.statistic for p in seen) or any(p.point for p in seen)


def test_a_server_that_dies_ends_the_run_and_keeps_its_points(tmp_path: Path) -> None:
    with FaultServer(fault="dies", after=40) as server, pytest.raises(EngineError):
        profile_engine(request(server, tmp_path / "a.jsonl"))
    assert read_measurements(tmp_path / "a.jsonl").points


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("429", "HTTP 429"),
        ("500", "HTTP 500"),
        ("garbage", "server-sent events"),
        ("closes early", "Payload|closed"),
        ("too few tokens", "returned"),
        ("lies about tokens", "returned"),
        ("no usage", "count tokens"),
    ],
)
def test_a_server_that_turns_bad_ends_the_run_with_its_reason(tmp_path: Path, fault: str, message: str) -> None:
    with FaultServer(fault=fault, after=1) as server, pytest.raises(EngineError, match=message):  # type: ignore[arg-type]
        profile_engine(request(server, tmp_path / "a.jsonl"))


def test_a_server_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with FaultServer() as server:
        pass
    with pytest.raises(EngineError, match="cannot be reached"):
        profile_engine(request(server, tmp_path / "a.jsonl"))


def test_a_wrong_model_name_names_the_right_one(tmp_path: Path) -> None:
    with FaultServer() as server, pytest.raises(InputError, match="it serves fault"):
        profile_engine(request(server, tmp_path / "a.jsonl", model="other"))


def test_missing_executable_and_missing_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"melange\[vllm\]"):
        profile_engine(RunRequest(model="m", vllm="no-such-vllm", gpu="L4", output=str(tmp_path / "a.jsonl")))
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with FaultServer() as server, pytest.raises(InputError, match="NO_SUCH_KEY is not set"):
        profile_engine(request(server, tmp_path / "b.jsonl", api_key_env="NO_SUCH_KEY"))


def test_estimate_counts_only_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    asked = RunRequest(
        model="m",
        gpu="g",
        precision="bf16",
        slo=SETTINGS.slo,
        resolution=1.4,
        point_seconds=300,
        input_tokens=(32,),
        output_tokens=(16, 64),
        usd_per_hour=3.6,
        output=str(path),
    )
    fresh = estimate(asked)
    assert (len(fresh.sizes), len(fresh.finished)) == (2, 0)
    assert fresh.usd == pytest.approx(fresh.seconds / 1000)
    Bench().profile(path)
    assert len(estimate(asked).finished) == 2
    assert estimate(asked).seconds == 0


def test_estimate_takes_rates_from_the_performance_model_where_it_can(tmp_path: Path) -> None:
    asked = RunRequest(model="llama-3.1-8b", gpu="L4", slo=Slo(tpot_s=0.1), output=str(tmp_path / "a.jsonl"))
    known, unknown = estimate(asked), estimate(replace(asked, model="nobody-knows"))
    assert (known.basis, unknown.basis) == ("model", "longest")
    assert 600 < known.seconds < unknown.seconds
    faster = estimate(replace(asked, gpu="H100"))
    assert faster.seconds < known.seconds
    assert all(rate > 0 for rate in known.expected_rps.values())
    hopeless = estimate(replace(asked, slo=Slo(tpot_s=0.01)))
    assert set(hopeless.expected_rps.values()) == {0.0}
    assert 60 < hopeless.seconds < 0.1 * known.seconds  # single requests are tried, and fail
    assert "no load is expected to keep the SLO" in render_estimate(hopeless, asked)
    assert "req/s expected" in render_estimate(known, asked)
    bounded = estimate(replace(asked, budget_minutes=5.0))
    assert (bounded.basis, bounded.seconds) == ("budget", pytest.approx(300, rel=0.01))


def cached_request(server: FaultServer, path: Path, share: float) -> RunRequest:
    return request(server, path, input_tokens=(64,), cached_share=share)


def test_a_prefix_cache_that_works_is_told_and_recorded(tmp_path: Path) -> None:
    said: list[str] = []
    with FaultServer(slots=4, gap_s=0.002, tells_cached=True) as server:
        profile_engine(cached_request(server, tmp_path / "a.jsonl", 0.5), warn=said.append)
    measured = read_measurements(tmp_path / "a.jsonl")
    assert measured.headers[0].facts["tells_cached_tokens"] is True
    assert not any("prefix cache" in text for text in said)
    assert {p.cached_tokens for p in measured.points} == {32}
    lone = next(p for p in measured.points if p.concurrency == 1)
    assert lone.valid, lone.invalid_reason
    assert lone.extra["cached_tokens_told"] == pytest.approx(32, abs=6)  # the first of six may find nothing


@pytest.mark.parametrize(
    ("fault", "share", "reason"),
    [
        ("no prefix cache", 0.5, "had 0 of 64 prompt tokens in it, but prompts share 32: turn prefix caching on"),
        ("caches what is distinct", 0.0, "had 63 of 64 prompt tokens in it, but prompts share 0: restart it"),
        ("caches what is distinct", 0.5, "had 63 of 64 prompt tokens in it, but prompts share 32: restart it"),
    ],
)
def test_a_load_whose_prompts_were_cached_otherwise_is_invalid(
    tmp_path: Path, fault: str, share: float, reason: str
) -> None:
    with FaultServer(fault=fault, gap_s=0.002, tells_cached=True) as server:  # type: ignore[arg-type]
        (found,) = profile_engine(cached_request(server, tmp_path / "a.jsonl", share))
    points = read_measurements(tmp_path / "a.jsonl").points
    assert points
    assert not any(p.valid for p in points)
    assert all(reason in (p.invalid_reason or "") for p in points)
    assert found.status == "censored"
    assert (found.low_rps, found.high_rps) == (0.0, None)


def test_a_server_that_says_nothing_of_its_cache_is_not_believed_to_have_one(tmp_path: Path) -> None:
    said: list[str] = []
    with FaultServer(slots=4, gap_s=0.002) as server:
        profile_engine(cached_request(server, tmp_path / "a.jsonl", 0.5), warn=said.append)
    measured = read_measurements(tmp_path / "a.jsonl")
    assert measured.headers[0].facts["tells_cached_tokens"] is False
    assert {p.extra["cached_tokens_told"] for p in measured.points} == {None}
    assert any("--cached-share is not checked" in text for text in said)


def test_a_precision_that_nothing_tells_is_called_assumed(tmp_path: Path) -> None:
    said: list[str] = []
    with FaultServer(slots=4, gap_s=0.002) as server:
        profile_engine(request(server, tmp_path / "a.jsonl"), warn=said.append)
        profile_engine(request(server, tmp_path / "b.jsonl", precision="fp8"), warn=said.append)
    assumed, given = (read_measurements(tmp_path / name).headers[0].facts for name in ("a.jsonl", "b.jsonl"))
    assert (assumed["precision"], assumed["precision_from"]) == ("bf16", "assumed")
    assert (given["precision"], given["precision_from"]) == ("fp8", "given")
    assert said == ["nothing says the precision of fault: bf16 is assumed; give it with --precision"]


def test_precision_is_found_where_something_tells_it(tmp_path: Path) -> None:
    assert found_precision("m", ["--quantization", "awq_marlin"]) == ("int4", "engine arguments")
    assert found_precision("m", ["--dtype=half"]) == ("fp16", "engine arguments")
    (tmp_path / "config.json").write_text('{"torch_dtype": "float32"}')
    assert found_precision("m", ["--dtype", "auto"], tmp_path) == ("fp32", "model folder")
    assert found_precision("Llama-3.1-8B-Instruct-FP8") == ("fp8", "model name")
    assert found_precision("m", ["--dtype", "half"], tmp_path, "int8") == ("int8", "given")
    assert found_precision("m") == ("bf16", "assumed")
