"""What an attacker and a bad day brought: with every command that reads such a file, one line at the most."""

from __future__ import annotations

from pathlib import Path

import pytest

from melange.cli.main import main

READERS = (
    ("solve",), ("simulate",), ("capacity",), ("sweep",), ("workload", "show"), ("workload", "from-trace"),
    ("workload", "from-metrics"), ("profile", "show"), ("limits",), ("gpus", "--prices"),
    ("estimate", "--gpu", "H100", "--slo-tpot-ms", "50", "--tpot-definition", "decode", "--model-config"),
    ("calibrate", "-o", "calibration.yaml"), ("nanoflow", "analyse", "--gpu", "H100", "--model"),
)  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=" ".join)
def test_every_command_takes_every_adversarial_input_with_one_line(
    reader: tuple[str, ...],
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = sorted(path for path in (shared / "cases" / "adversarial").rglob("*") if path.is_file())
    assert len(cases) > 14
    for case in cases:
        with pytest.raises(SystemExit) as ended:
            main([*reader, str(case)])
        said = capsys.readouterr().err
        assert ended.value.code in (0, 2, 3), (case.name, said)
        if ended.value.code == 2:
            assert said.startswith("melange: "), (case.name, said)
            assert len(said.strip().splitlines()) == 1, (case.name, said)
            assert not list(tmp_path.iterdir()), case.name
        for made in tmp_path.iterdir():
            made.unlink()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["solve", "arena-120ms", "--uncertainty", "9999999999"], "--uncertainty"),
        (["solve", "arena-120ms", "--attain", "0.9", "--requests", "1000000000000"], "--requests"),
        (["solve", "arena-120ms", "--attain", "0.9", "--seed", "-5"], "--seed"),
        (["solve", "arena-120ms", "--attain", "0.9", "--arrivals", "gamma:1e300"], "arrivals"),
        (["solve", "arena-120ms", "--own", "L4=1000000000"], "more than 999999999"),
        (["solve", "arena-120ms", "--rate", "1e308"], "check the rate"),
        (["simulate", "arena-120ms", "--fleet", "1xH100", "--replications", "100000000"], "--replications"),
        (["simulate", "arena-120ms", "--fleet", "1xH100", "--arrivals", "gamma:1e300"], "arrivals"),
        (["capacity", "arena-120ms", "--fleet", "1xL4", "--jobs", "100000000000"], "--jobs"),
        (["sweep", "arena-120ms", "--rates", "2,2"], "names a value twice"),
        (["sweep", "arena-120ms", "--rates", "1:1000000000000:1000000000000"], "--rates"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_numbers_beyond_range_end_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    line = capsys.readouterr().err
    assert (ended.value.code, said in line, len(line.splitlines())) == (2, True, 1), line
