"""Speculation: what is written, what a step yields, what it costs."""

from __future__ import annotations

import pytest

from melange.errors import InputError
from melange.serving.speculation import Speculation


def test_it_is_read_as_it_is_written():
    assert Speculation.parse("3:0.7") == Speculation(3, 0.7, "mtp")
    assert Speculation.parse("5:0.25:ngram") == Speculation(5, 0.25, "ngram")


@pytest.mark.parametrize(
    "text", ["", "3", "3:0.7:mtp:x", "a:0.7", "3:b", "0:0.5", "-1:0.5", "3:1.5", "3:nan", "3:0.7:magic", "1e9:0.5"]
)
def test_what_is_none_is_one_line(text):
    with pytest.raises(InputError, match="speculation") as error:
        Speculation.parse(text)
    assert "\n" not in str(error.value)


def test_a_step_yields_what_leviathan_et_al_say():
    assert Speculation(3, 0.7).yielded_tokens == pytest.approx((1 - 0.7**4) / (1 - 0.7))
    assert Speculation(4, 0.0).yielded_tokens == 1.0
    assert Speculation(4, 1.0).yielded_tokens == 5.0


def test_drafting_costs_a_layer_or_nothing():
    assert Speculation(1, 0.5).draft_share(40) == pytest.approx(1 / 40)
    assert Speculation(1, 0.5, "ngram").draft_share(40) == 0.0
