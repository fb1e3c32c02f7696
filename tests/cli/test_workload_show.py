"""``melange workload show`` as users call it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from melange.cli.workload import workload


class TestShow:
    def show(self, *arguments: str) -> Result:
        return CliRunner().invoke(workload, ["show", *arguments])

    def test_table(self) -> None:
        done = self.show("azure-conversation")
        assert done.exit_code == 0, done.output
        lines = done.stdout.splitlines()
        assert lines[0].startswith("azure-conversation: 5.53042 req/s of llama-3.1-8b, in the mean 1,154.7 input")
        assert lines[2] == "Windows of 0:03:04"
        assert sum("█" in line for line in lines) == 19
        assert "busiest window at 0:27:3" in done.stdout
        assert "load: GPU time x price on the cheapest config of each size, over the mean's" in done.stdout

    def test_json_and_csv_agree(self) -> None:
        document = json.loads(self.show("azure-code", "-o", "json", "--gpu", "H100").stdout)
        assert document["load_measure"] == "GPU time on H100"
        assert document["summary"]["peak_load_to_mean"] == max(w["load"] for w in document["windows"])
        rows = list(csv.DictReader(self.show("azure-code", "-o", "csv", "--gpu", "H100").stdout.splitlines()))
        assert [float(row["load"]) for row in rows] == [w["load"] for w in document["windows"]]
        assert len(rows) == 8

    def test_without_windows(self) -> None:
        done = self.show("arena-120ms")
        assert done.exit_code == 0
        assert "no windows: it comes from no trace with times" in done.stdout
        document = json.loads(self.show("arena-120ms", "-o", "json").stdout)
        assert (document["summary"], document["windows"]) == (None, [])
        assert self.show("arena-120ms", "-o", "csv").stdout.startswith("start_s")

    def test_by_tokens_where_no_rates_are_known(self, tmp_path: Path) -> None:
        trace, file = tmp_path / "long.csv", tmp_path / "long.yaml"
        trace.write_text("input_tokens,output_tokens\n20,30\n27,30\n", encoding="utf-8")
        made = ["from-trace", str(trace), "--rate", "1", "--model", "llama-3.1-8b", "-o", str(file)]
        assert CliRunner().invoke(workload, made).exit_code == 0
        text = file.read_text(encoding="utf-8").replace("set: estimated/llama-3.1-8b", "files: [missing.jsonl]")
        file.write_text(text, encoding="utf-8")
        done = self.show(str(file))
        assert done.exit_code == 0, done.output
        assert "warning: load is measured by tokens, as no rates are known" in done.stderr
        assert "no windows" in done.stdout
        document = json.loads(self.show(str(file), "-o", "json").stdout)
        assert document["load_measure"] == "tokens, one of output as 4 of input"

    def test_figures(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        files = [tmp_path / "a.svg", tmp_path / "b.svg"]
        for file in files:
            assert self.show("azure-code", "--plot", str(file)).exit_code == 0
        assert b"<svg" in files[0].read_bytes()
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_bad_input(self, tmp_path: Path) -> None:
        for arguments, message in (
            (("azure-code", "--plot", "a.txt"), "a figure cannot be 'txt'"),
            (("azure-code", "--gpu", "H10"), "no rates of 'H10'; name one of L4"),
            (("arena-120ms", "--plot", str(tmp_path / "a.svg")), "has no windows to draw"),
        ):
            assert message in str(self.show(*arguments).exception)
