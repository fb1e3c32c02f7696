"""The SLO of a workload file in both of its shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from melange.errors import InputError
from melange.files.documents import Document, check_schema
from melange.planning.workload_slo import read_slo, slo_row
from melange.slo import Slo


def read(text: str) -> Slo:
    document = Document(file="w.yaml", data={"slo": yaml.safe_load(text)}, marks={("slo",): (4, 6)})
    return read_slo(document)


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        (
            "{ttft: {p95_ms: 500}, tpot: {p95_ms: 50, definition: decode}}",
            Slo(ttft_s=0.5, ttft_quantile=0.95, tpot_s=0.05, tpot_quantile=0.95),
        ),
        (
            "{e2e: {p99.9_ms: 9000}, tpot: {p50_ms: 40.5, definition: e2e_per_token}, scope: bucket}",
            Slo(
                e2e_s=9.0,
                e2e_quantile=0.999,
                tpot_s=0.0405,
                tpot_quantile=0.5,
                tpot_definition="e2e_per_token",
                scope="bucket",
            ),
        ),
        ("{ttft: {mean_ms: 500}, tpot: {mean_ms: 50, definition: decode}}", Slo(ttft_s=0.5, tpot_s=0.05)),
        ("{ttft_ms: 500, attainment: 0.95}", Slo(ttft_s=0.5, attainment=0.95)),
        ("{}", Slo()),
    ],
)
def test_both_shapes_are_read_and_read_back(text: str, slo: Slo) -> None:
    assert read(text) == slo
    written = yaml.safe_dump(slo_row(slo), default_flow_style=True)
    assert read(written) == slo


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{ttft: {p95_ms: 500}, tpot_ms: 50, tpot_definition: decode}",
            "slo has both ttft, promised by itself, and tpot_ms",
        ),
        ("{ttft: {p95_ms: 500}, attainment: 0.99}", "slo has both ttft, promised by itself, and attainment"),
        ("{ttft: {p95_ms: 500}, ttft_ms: 400}", "keep one shape"),
        ("{ttft: {p95_ms: 500, p99_ms: 900}}", "slo.ttft has p95_ms and p99_ms"),
        ("{tpot: {definition: decode}}", "slo.tpot has no limit"),
        ("{ttft: {mean_ms: 500}, e2e: {p95_ms: 500}}", "TTFT has no percentile beside p95 E2E"),
        ("{ttft: {p0_ms: 500}}", "p0_ms is no percentile"),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read(text)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{tpot: {p95_ms: 50}}", "lacks the key 'definition'"),
        ("{ttft: {p95: 50}}", "unknown key 'p95' in slo.ttft.*did you mean 'p95_ms'"),
        ("{ttft: {p95_ms: 50, fast: 1}}", "unknown key 'fast' in slo.ttft.*known keys: mean_ms, p95_ms"),
        ("{ttft: {p100_ms: 50}}", "unknown key 'p100_ms'"),
        ("{ttft: {p95_ms: 0}}", "slo.ttft.p95_ms is 0"),
        ("{ttft: 500}", "slo.ttft is 500, not a mapping"),
    ],
)
def test_the_schema_refuses_what_is_no_limit(text: str, message: str) -> None:
    data = {"version": 1, "name": "w", "rate_rps": 1, "slo": yaml.safe_load(text)}
    with pytest.raises(InputError, match=message):
        check_schema(Document(file="w.yaml", data=data, marks={}), "workload")


def test_the_schema_takes_percentiles(tmp_path: Path) -> None:
    slo = Slo(ttft_s=0.5, ttft_quantile=0.999, tpot_s=0.05, tpot_quantile=0.95)
    schema = Document(file="w.yaml", data={"version": 1, "name": "w", "rate_rps": 1, "slo": slo_row(slo)}, marks={})
    check_schema(schema, "workload")
