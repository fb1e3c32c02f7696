"""No command overwrites what it reads, whatever its name; answers go where they are sent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from melange.cli.main import main, melange
from melange.cli.outputs import OutputOption

WORKLOAD = Path(__file__).parents[2] / "workloads" / "arena-120ms.yaml"
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
COMMAND = [sys.executable, "-m", "melange"]


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    ctx = click.Context(command)
    children = ((name, command.get_command(ctx, name)) for name in command.list_commands(ctx))
    return [leaf for name, child in children if child is not None for leaf in leaves(child, (*path, name))]


def said_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, capsys.readouterr().err


def test_every_option_that_names_a_file_to_write_is_one() -> None:
    """A file option is an output, or is among those known to be read."""
    read = {
        "trace_file", "model_config", "model_configs", "gpu_file", "calibration", "price_file", "pipeline_file",
        "tiers_file", "file", "plan_file", "files", "trace", "workload", "measurements", "source", "engine_log",
    }  # fmt: skip
    found = 0
    for path, command in leaves(melange):
        for param in command.params:
            written = isinstance(param, OutputOption)
            found += written
            if isinstance(param, click.Option) and isinstance(param.type, click.Path) and param.type.file_okay:
                named = (
                    param.name in ("output", "save", "plot", "prices_csv", "write_to")
                    or "write" in (param.help or "").lower()
                )
                assert written == named, (path, param.name)
                assert written or param.name in read, (path, param.name)
    assert found >= 12


def test_every_output_that_is_an_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried = 0
    for path, command in leaves(melange):
        takes = next((p for p in command.params if isinstance(p, click.Argument) and p.nargs in (1, -1)), None)
        for param in command.params:
            if not isinstance(param, OutputOption) or takes is None:
                continue
            tried += 1
            file, link = tmp_path / "input.yaml", tmp_path / "link.yaml"
            file.write_text("kept")
            link.unlink(missing_ok=True)
            link.symlink_to(file)
            for output in (file, link):
                code, said = said_of([*path, str(file), param.opts[-1], str(output)], capsys)
                assert code == 2, (path, said)
                assert "reads or writes it already" in said or "none of" in said, (path, said)
                assert file.read_text() == "kept"
    assert tried >= 8


def test_two_outputs_alike_and_files_that_a_workload_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(tmp_path / "one")
    code, said = said_of(["aibrix", "import", "x.json", "-o", one, "--prices-csv", one], capsys)
    assert (code, "reads or writes it already" in said) == (2, True)
    prices, workload = tmp_path / "prices.csv", tmp_path / "w.yaml"
    prices.write_text("kept")
    text = WORKLOAD.read_text()
    workload.write_text(text.replace("prices: ", "prices: {file: prices.csv} #") if "\nprices: " in text else text)
    if "file: prices.csv" in workload.read_text():
        code, said = said_of(["solve", str(workload), "--plan", str(prices)], capsys)
        assert (code, prices.read_text()) == (2, "kept"), said


def test_a_choice_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = said_of(["solve", str(WORKLOAD), "--output", "json", "--plan", "json"], capsys)
    assert (code, Path("json").is_file()) == (0, True), said


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_workload_comes_from_a_pipe_and_the_plan_goes_into_one(name: str) -> None:
    given = WORKLOAD.read_bytes()
    done = subprocess.run(
        [*COMMAND, "solve", name, "--plan", "/dev/stderr"], input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"$4.37" in done.stdout
    assert b'"schema_version"' in done.stderr


def test_a_named_pipe_and_a_shell_s_substitution(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    line = f'{sys.executable} -m melange solve <(cat "{WORKLOAD}") --plan "{tmp_path}/p.json"; mkfifo "{tmp_path}/f"; '
    line += (
        f'cat "{tmp_path}/p.json" > "{tmp_path}/f" & {sys.executable} -m melange simulate "{tmp_path}/f" --requests 200'
    )
    done = subprocess.run([bash, "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">/dev/full"])
def test_closed_or_full_standard_streams(redirection: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m melange gpus {redirection}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    wrong = redirection in (">&-", ">/dev/full")
    assert done.returncode == (1 if wrong else 0)
    assert len(done.stderr.splitlines()) == (1 if wrong else 0), done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: [" + "1," * 600_000 + "1]", "holds more than 500000 values"),
        (ALIASES, "an alias"),
        ("rate_rps: 1" + "0" * 30, "out of all range"),
        ("rate_rps: 1e308", "out of all range"),
    ],
)  # fmt: skip
def test_bombs_end_in_one_line(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.yaml").write_text(text)
    code, line = said_of(["solve", str(tmp_path / "w.yaml")], capsys)
    assert (code, said in line, len(line.splitlines())) == (2, True, 1), line


def test_devices_as_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["solve", "/dev/zero"], ["simulate", "/dev/zero"], ["workload", "from-trace", "/dev/zero"]):
        code, line = said_of(arguments, capsys)
        assert code == 2, (arguments, line)
        assert len(line.splitlines()) == 1, line
    assert os.path.exists("/dev/zero")
