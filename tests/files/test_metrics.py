"""Samples of Prometheus' text, as vLLM and others write it."""

from __future__ import annotations

import pytest

from melange.errors import InputError
from melange.files.metrics import MetricSample, samples_of

TEXT = """# HELP tokens Tokens of a prompt.
# TYPE tokens histogram
other{ this line is broken
tokens_bucket{le="10",model="a \\"quoted\\", name}"} 3 1700000000000
tokens_bucket{le="+Inf"} +Inf
  tokens_sum 1.5e3
"""


def test_samples_come_with_labels_and_lines_and_others_are_not_looked_at() -> None:
    assert list(samples_of(TEXT, "tokens")) == [
        MetricSample("tokens_bucket", {"le": "10", "model": 'a "quoted", name}'}, 3.0, 4),
        MetricSample("tokens_bucket", {"le": "+Inf"}, float("inf"), 5),
        MetricSample("tokens_sum", {}, 1500.0, 6),
    ]
    assert not list(samples_of(TEXT, "nothing"))


@pytest.mark.parametrize(
    "line", ["tokens", "tokens sixty", 'tokens{le="1} 3', "tokens{le=1} 3", 'tokens{le=" "} ', "tokens " + "9" * 400]
)
def test_a_broken_line_is_named(line: str) -> None:
    with pytest.raises(InputError, match="not a sample of Prometheus' text format") as raised:
        list(samples_of(f"# TYPE tokens counter\n{line}\n", "tokens"))
    assert raised.value.line == 2
