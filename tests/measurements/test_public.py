"""Public measurements: the shipped file is sound and read to the last digit; a bad row is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.measurements.public import SHIPPED, PublicPoint, points_text, read_public_points, shipped_points


def test_the_shipped_file_is_read_and_written_the_same():
    points = shipped_points()
    assert len(points) > 1400
    assert points_text(points) == data_path(SHIPPED).read_text(encoding="utf-8")


def test_every_shipped_point_names_its_source_and_what_the_catalog_knows():
    catalog = load_catalog()
    for point in shipped_points():
        assert point.url.startswith("https://"), point
        assert point.source
        assert (catalog.gpu(point.gpu).name, catalog.model(point.model).name) == (point.gpu, point.model)


def test_a_row_is_its_point_again():
    point = replace(shipped_points()[0], ttft_s=0.1 + 0.2, engine_args=("--block-size=32",), is_median=True)
    assert PublicPoint.from_row(point.row()) == point


def test_the_version_of_a_dated_vllm_is_that_of_its_time():
    point = replace(shipped_points()[0], engine="vllm", engine_version=None, date="2024-11")
    assert point.likely_version == "0.6"
    assert replace(point, engine_version="0.11.0").likely_version == "0.11.0"
    assert replace(point, engine="sglang").likely_version is None


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("input_tokens", "many", "input_tokens is 'many'"),
        ("input_tokens", "", "input_tokens is 0"),
        ("output_tokens_per_s", "nan", "output_tokens_per_s is 'nan'"),
        ("ttft_s", "-1", "ttft_s is -1"),
        ("load", "steady", "load is 'steady'"),
        ("precision", "fp7", "precision is 'fp7'"),
        ("concurrency", "", "concurrency is missing"),
        ("tp", "0", "tp is 0"),
    ],
)
def test_a_bad_cell_is_named_with_its_line(tmp_path, column, value, problem):
    closed = next(point for point in shipped_points() if point.load == "closed")
    header, line = points_text([closed]).splitlines()
    cells = closed.row() | {column: value}
    (tmp_path / "p.csv").write_text(f"{header}\n{line}\n{','.join(cells.values())}\n")
    with pytest.raises(InputError, match=problem) as caught:
        read_public_points(tmp_path / "p.csv")
    assert caught.value.line == 3


def test_a_file_without_a_column_and_a_short_row_are_refused(tmp_path):
    header = points_text([]).strip()
    (tmp_path / "p.csv").write_text(header.replace("gpu,", "", 1) + "\n")
    with pytest.raises(InputError, match="the column gpu is missing"):
        read_public_points(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text(header + "\na,b\n")
    with pytest.raises(InputError, match="fewer cells"):
        read_public_points(tmp_path / "p.csv")
