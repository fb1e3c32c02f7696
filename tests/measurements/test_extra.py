"""What nothing reads: ``extra`` of a load point and ``facts`` of a header, by the source and by the answers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from profiler.bench import SETTINGS, Bench

import melange
from melange.capacity.interval import interval_of
from melange.capacity.verdict import judge
from melange.files.records import to_plain
from melange.measurements.curve import measured_curves
from melange.measurements.file import MeasurementFile, read_measurements
from melange.measurements.measurement import Measurement
from melange.profiler.check import choose_sentinels
from melange.profiler.load import Load, Size
from melange.profiler.search import Capacity, SearchSettings, next_step
from melange.report.measurements import file_slo, render_profile
from melange.slo import Slo

PACKAGE = Path(melange.__file__).parent
USERS = ("capacity", "perfmodel", "profiler", "interop")  # of load points and headers
SLOS = (Slo(), Slo(tpot_s=0.02), Slo(ttft_s=0.02, tpot_s=0.03), Slo(tpot_s=0.035, attainment=0.5))


def modules() -> Iterator[Path]:
    for package in USERS:
        yield from (PACKAGE / package).rglob("*.py")
    yield PACKAGE / "report" / "measurements.py"
    yield PACKAGE / "report" / "estimates.py"
    yield PACKAGE / "measurements" / "merge.py"


@pytest.mark.parametrize("file", sorted(modules()), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_module_looks_into_extra_or_facts(file: Path) -> None:
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    read = [node.lineno for node in tree if isinstance(node, ast.Attribute) and node.attr in ("extra", "facts")]
    assert not read, f"lines {read}: give it a field of its own"


def answers(file: MeasurementFile) -> list[object]:
    """Everything that is concluded from a file of load points of one configuration."""
    sizes = sorted({(int(p.input_tokens), int(p.output_tokens), int(p.cached_tokens)) for p in file.points})
    found: list[object] = [file_slo(file), [to_plain(curve) for curve in measured_curves([file])]]
    found += [bare(p) for p in choose_sentinels(file.points, 3)]
    for slo in SLOS:
        found.append(render_profile(file, slo, output="json"))
        found.append([judge(point, slo) for point in file.points])
        for size in sizes:
            points = [p for p in file.points if (p.input_tokens, p.output_tokens, p.cached_tokens) == size]
            for count in range(len(points), 0, -4):
                interval = interval_of(points[:count], slo)
                found.append(replace(interval, point=None))
                found.append(step(Size(*size), points[:count], replace(SETTINGS, slo=slo)))
    return found


def step(size: Size, points: list[Measurement], settings: SearchSettings) -> Load | str:
    found = next_step(size, points, settings)
    return found.describe() if isinstance(found, Capacity) else found


def bare(point: Measurement) -> Measurement:
    return replace(point, extra={})


def emptied(file: MeasurementFile) -> MeasurementFile:
    headers = tuple(replace(header, facts={}) for header in file.headers)
    return replace(file, headers=headers, points=tuple(bare(point) for point in file.points))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> MeasurementFile:
    path = tmp_path_factory.mktemp("searched") / "a.jsonl"
    Bench().profile(path)
    return read_measurements(path)


def test_answers_do_not_change_without_it(searched: MeasurementFile) -> None:
    assert all(point.extra for point in searched.points)
    assert answers(emptied(searched)) == answers(searched)


def test_answers_of_a_file_of_version_1_do_not_change_without_it(shared: Path) -> None:
    file = read_measurements(shared / "cases/show-not-monotone.jsonl")
    assert all(point.extra for point in file.points)
    assert answers(emptied(file)) == answers(file)


@pytest.mark.parametrize("name", ["confidence", "nominal_rps", "queue_growth_high_rps"])
def test_answers_do_change_without_what_has_fields(searched: MeasurementFile, name: str) -> None:
    """Else the comparison above would show nothing."""
    points = tuple(replace(point, **{name: None}) for point in searched.points)  # type: ignore[arg-type]
    assert answers(replace(searched, points=points)) != answers(searched)
