"""The page on when mixing pays quotes what the code computes, and its theory holds."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def figures():
    return runpy.run_path(str(DOCS / "figures.py"))


@pytest.fixture(scope="module")
def page():
    return (DOCS / "when-mixing-pays.md").read_text(encoding="utf-8")


def test_numbers_in_the_page_are_those_of_the_code(figures, page):
    computed = set(figures["quoted"]().values())
    in_page = set(re.findall(r"\d+(?:\.\d+)?%", page)) - {"2%"}  # 2% is an example, no result
    assert in_page == computed


def test_figures_of_the_page_are_there(page):
    images = re.findall(r"\]\((images/[^)]+)\)", page)
    assert len(images) == 3
    for image in images:
        assert (DOCS / image).read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.parametrize("rate", [1.0, 7.0, 30.0, 200.0])
def test_rounding_is_all_that_mixing_one_shape_can_save(figures, rate):
    """Two types of one shape: savings at most the price of one replica of each, over the cost."""
    saved = figures["toy_savings"](figures["ONE_SHAPE"], figures["ONE_SHAPE_PRICES"], rate)
    per_request = min(
        price / rates[0]
        for price, rates in zip(figures["ONE_SHAPE_PRICES"].values(), figures["ONE_SHAPE"].values(), strict=True)
    )
    assert 0 <= saved <= sum(figures["ONE_SHAPE_PRICES"].values()) / (rate * per_request)


def test_specialists_save_their_limit_at_high_rates_and_nothing_on_one_gpu(figures):
    table, prices = figures["TWO_SPECIALISTS"], figures["TWO_SPECIALISTS_PRICES"]
    assert figures["toy_savings"](table, prices, 0.5) == pytest.approx(0.0, abs=1e-9)
    high = figures["toy_savings"](table, prices, 5000.0)
    assert high == pytest.approx(figures["toy_limit"](table, prices), abs=0.001)


def test_limit_by_hand(figures):
    """Half of each kind: 0.5 / 1.25 twice against 0.5 / 1.25 + 0.5 / 0.8."""
    limit = figures["toy_limit"](figures["TWO_SPECIALISTS"], figures["TWO_SPECIALISTS_PRICES"])
    assert limit == pytest.approx(1 - (2 * 0.5 / 1.25) / (0.5 / 1.25 + 0.5 / 0.8))


def test_toy_savings_are_never_negative(figures):
    for rate in np.geomspace(0.3, 40, 15):
        for world in ("ONE_SHAPE", "TWO_SPECIALISTS"):
            assert figures["toy_savings"](figures[world], figures[f"{world}_PRICES"], float(rate)) >= -1e-9
