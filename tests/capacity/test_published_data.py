"""The paper's tables that ship as data are those of the reference."""

from __future__ import annotations

import csv

import pytest

from melange.files.shipped import data_path


def rows(text):
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def shipped(name):
    text = data_path(f"profiles/melange-2024/{name}").read_text(encoding="utf-8")
    assert text.startswith("# source: Mélange, arXiv 2404.14527")
    return rows(text)


def test_allocations_are_the_reference_s(shared):
    reference = rows((shared / "reference/melange/allocations_arena.csv").read_text(encoding="utf-8"))
    assert shipped("paper-allocations.csv") == reference


def test_heatmap_is_the_reference_s(shared):
    reference = rows((shared / "reference/melange/heatmap_a100_v_a10g.csv").read_text(encoding="utf-8"))
    ours = shipped("paper-heatmap-a10g-a100.csv")
    assert [list(row.values()) for row in ours] == [list(row.values()) for row in reference]


def test_each_allocation_s_cost_adds_up():
    prices = {"L4": 0.70, "A10G": 1.01, "A100": 3.67, "H100": 7.516}
    for row in shipped("paper-allocations.csv"):
        cost = sum(int(row[gpu]) * price for gpu, price in prices.items())
        assert cost == pytest.approx(float(row["cost_usd_per_hour"]), abs=0.005)
