"""samples_of: what Prometheus' text format says of the metrics that one asks for, each sample with its line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from melange.errors import InputError


class MetricSample(NamedTuple):
    """One sample: its full name (``..._bucket`` and the like), labels, value, and the line it stands in."""

    name: str
    labels: dict[str, str]
    value: float
    line: int


def samples_of(text: str, *metrics: str) -> Iterator[MetricSample]:
    """Samples whose names begin with one of ``metrics``, in order; other lines are not looked at.

    A line of theirs that is no sample raises InputError with its number.
    """
    from prometheus_client.parser import text_string_to_metric_families  # only metrics need it

    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith(metrics):
            continue
        try:
            for family in text_string_to_metric_families(line):
                for sample in family.samples:
                    yield MetricSample(sample.name, sample.labels, float(sample.value), number)
        except (ValueError, IndexError, OverflowError) as error:  # the parser's own ways to fail
            raise InputError(
                f"not a sample of Prometheus' text format: {line.strip()[-60:]!r}",
                line=number,
                fix="scrape the metrics again",
            ) from error
