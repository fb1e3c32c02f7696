"""profile_engine and estimate, against servers that answer, fall silent or lie.

Loads run in virtual time, or end by their count of requests: no test depends on how fast a server answered.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from profiler.bench import SETTINGS, Bench, simulated

from melange.errors import EngineError, InputError
from melange.measurements.file import read_measurements
from melange.profiler import runner
from melange.profiler.load import Size
from melange.profiler.runner import RunRequest, estimate, profile_engine
from melange.profiler.session import Progress
from melange.report.measurements import render_estimate
from melange.slo import Slo
from melange.testing.fault_server import FaultServer


def request(server: FaultServer, path: Path, **changes: object) -> RunRequest:
    values: dict[str, object] = {
        "url": server.url,
        "model": "fault",
        "gpu": "L4",
        "slo": Slo(tpot_s=0.05),
        "input_tokens": (16,),
        "output_tokens": (8,),
        "point_seconds": 60.0,
        "requests": 100,
        "max_concurrency": 8,
        "resolution": 2.0,
        "output": str(path),
    }
    return RunRequest(**{**values, **changes})  # type: ignore[arg-type]


def test_attached_server_end_to_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with FaultServer(slots=4, gap_s=0.004) as server:
        asked = request(server, tmp_path / "a.jsonl", point_seconds=1.5)
        (found,) = profile_engine(asked, report=seen.append)
    measured = read_measurements(tmp_path / "a.jsonl")
    (header,) = measured.headers
    assert (header.engine, header.gpu, header.engine_version) == ("vllm", "L4", "fault-1")
    assert (header.slo, header.max_model_len_tokens) == (Slo(tpot_s=0.05), 4096)
    assert header.engine_command is None
    assert found.size == Size(16, 8)
    assert {p.loop for p in measured.points} >= {"closed"}
    assert all(p.extra.get("client") for p in measured.points)
    assert len([p for p in seen if p.point is not None]) == len(measured.points)


def test_a_server_that_dies_ends_the_run_and_keeps_its_points(tmp_path: Path) -> None:
    with FaultServer() as server:

        def kill(progress: Progress) -> None:
            if progress.point is not None:
                server.fault = "dies"

        with pytest.raises(EngineError):
            profile_engine(request(server, tmp_path / "a.jsonl"), report=kill)
    assert [point.valid for point in read_measurements(tmp_path / "a.jsonl").points][:2] == [True, False]


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
    with pytest.raises(InputError, match=r"'\.\[vllm\]'"):
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


UNREACHABLE = Slo(tpot_s=1e-9)  # its search ends with lone requests


def cached_request(server: FaultServer, path: Path, share: float, **changes: object) -> RunRequest:
    return request(server, path, input_tokens=(64,), cached_share=share, **changes)


def test_a_prefix_cache_that_works_is_told_and_recorded(tmp_path: Path) -> None:
    said: list[str] = []
    with FaultServer(tells_cached=True) as server:
        asked = cached_request(server, tmp_path / "a.jsonl", 0.5, slo=UNREACHABLE)
        profile_engine(asked, warn=said.append)
    measured = read_measurements(tmp_path / "a.jsonl")
    assert measured.headers[0].facts["tells_cached_tokens"] is True
    assert not any("prefix cache" in text for text in said)
    assert {p.cached_tokens for p in measured.points} == {32}
    lone = next(p for p in measured.points if p.concurrency == 1)
    assert "prefix cache" not in (lone.invalid_reason or "")
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
    with (
        FaultServer(fault=fault, gap_s=0.002, tells_cached=True) as server,  # type: ignore[arg-type]
        pytest.raises(EngineError, match=re.escape(reason)),
    ):
        profile_engine(cached_request(server, tmp_path / "a.jsonl", share))
    points = read_measurements(tmp_path / "a.jsonl").points
    assert points
    assert not any(p.valid for p in points)
    assert all(reason in (p.invalid_reason or "") for p in points)


def test_a_server_that_says_nothing_of_its_cache_is_not_believed_to_have_one(tmp_path: Path) -> None:
    said: list[str] = []
    with FaultServer() as server:
        asked = cached_request(server, tmp_path / "a.jsonl", 0.5, slo=UNREACHABLE)
        profile_engine(asked, warn=said.append)
    measured = read_measurements(tmp_path / "a.jsonl")
    assert measured.headers[0].facts["tells_cached_tokens"] is False
    assert {p.extra["cached_tokens_told"] for p in measured.points} == {None}
    assert any("--cached-share is not checked" in text for text in said)


def test_a_precision_that_nothing_tells_is_called_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(runner, "live_measure", simulated())
    with FaultServer() as server:
        profile_engine(request(server, tmp_path / "a.jsonl"), warn=said.append)
        profile_engine(request(server, tmp_path / "b.jsonl", precision="fp8"), warn=said.append)
    assumed, given = (read_measurements(tmp_path / name).headers[0] for name in ("a.jsonl", "b.jsonl"))
    assert (assumed.precision, assumed.facts["precision_from"]) == ("bf16", "assumed")
    assert (given.precision, given.facts["precision_from"]) == ("fp8", "given")
    assert said == ["nothing says the precision of fault: bf16 is assumed; give it with --precision"]
