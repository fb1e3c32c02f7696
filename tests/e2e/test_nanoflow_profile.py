"""``melange profile run --url`` measures a served NanoFlow engine as it measures any other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("aiohttp")

from melange.measurements.file import read_measurements
from melange.nanoflow.pipeline import Pipeline
from melange.testing.tiny_model import write_tiny_model

pytestmark = pytest.mark.e2e


def test_profile_of_a_pipeline_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_tiny_model(tmp_path / "tiny")
    pipeline = Pipeline.interleaved(model="tiny", gpu="CPU", splits=(64, 256))
    (tmp_path / "pipeline.json").write_text(json.dumps(pipeline.to_dict()))
    melange = [sys.executable, "-m", "melange"]
    serve = [*melange, "nanoflow", "serve", "--model", str(tmp_path / "tiny"), "--random-weights", "--dtype", "fp32"]
    serve += ["--pipeline", str(tmp_path / "pipeline.json"), "--max-requests", "32", "--port", "0"]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            assert "the pipeline of tiny on CPU, nano-batches: 2" in server.stderr.readline()
            url = server.stderr.readline().removeprefix("listening on ").strip()
            profile = [*melange, "profile", "run", "--url", url, "--model", "tiny", "--gpu", "CPU"]
            profile += ["--input-tokens", "32", "--output-tokens", "16", "--point-seconds", "5", "--requests", "50"]
            profile += ["--slo-tpot-ms", "2000", "--tpot-definition", "decode", "--max-concurrency", "8"]
            profile += ["--budget-minutes", "1", "-o", str(tmp_path / "profile.jsonl")]
            done = subprocess.run(profile, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == 0, done.stderr
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()
    points = read_measurements(tmp_path / "profile.jsonl").points
    assert points
    assert {point.engine for point in points} == {"nanoflow"}
    assert all(point.achieved_rps > 0 and (point.input_tokens, point.output_tokens) == (32, 16) for point in points)
    assert all(point.tpot_decode_s is not None and point.tpot_decode_s.mean > 0 for point in points)
