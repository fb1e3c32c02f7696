"""``melange aibrix`` as users call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from melange import InputError, read_measurements, read_prices
from melange.cli.main import melange as cli
from melange.interop.aibrix import read_aibrix

# Three output sizes by two input sizes, as AIBrix writes them: rows are outputs.
PROFILE: dict[str, Any] = {
    "gpu": "chat-l4",
    "cost": 0.7,
    "tputs": [[30.0, 20.0], [15.0, 10.0], [3.0, 0.0]],
    "indexes": [[4, 32, 256], [128, 1024]],
    "created": 1748888478.258241,
    "e2e": [[0.1, 0.2], [0.3, 0.4], [2.0, 6.0]],
    "slos": {"percentile": 99, "e2e": 5.0},
}


def written(folder: Path, data: object, name: str = "profile.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_command_line(tmp_path):
    out, prices = tmp_path / "m.jsonl", tmp_path / "p.csv"
    path = written(tmp_path, PROFILE)
    done = CliRunner().invoke(
        cli, ["aibrix", "import", str(path), "--gpu", "L4", "--model", "x", "-o", str(out), "--prices-csv", str(prices)]
    )
    assert done.exit_code == 0, done.output
    assert len(read_measurements(out).points) == 6
    (offer,) = read_prices(prices)
    assert (offer.name, offer.gpu, offer.price_usd_per_hour) == ("chat-l4", "L4", 0.7)
    exported = tmp_path / "l4.json"
    done = CliRunner().invoke(cli, ["aibrix", "export", "arena-120ms", "--gpu", "L4", "-o", str(exported)])
    assert done.exit_code == 0, done.output
    assert read_aibrix(exported)[0].deployment == "L4"


def test_a_deployment_needs_a_gpu_and_nothing_is_written(tmp_path):
    path = written(tmp_path, PROFILE)
    done = CliRunner().invoke(cli, ["aibrix", "import", str(path), "--model", "x", "-o", str(tmp_path / "m.jsonl")])
    assert isinstance(done.exception, InputError)
    assert "--gpu chat-l4=GPU" in str(done.exception)
    assert not (tmp_path / "m.jsonl").exists()
