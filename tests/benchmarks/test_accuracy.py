"""The accuracy page: its figures against their oracles, and its order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from accuracy_figures import (
    CLOSE,
    PRICES_USD_PER_HOUR,
    HeatmapCell,
    Spread,
    _share_among,
    a100_sides_right,
    chosen_well,
    decision_regret,
    h100_side_share,
    measure_accuracy,
    published_groups,
    read_heatmap,
)
from accuracy_page import render_accuracy

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.perfmodel.calibrate import fit, split
from melange.serving.efficiencies import Efficiencies

CATALOG = load_catalog()


@pytest.fixture(scope="module")
def short():
    groups = published_groups(CATALOG)
    return [
        kept[0]
        for group in groups
        if (kept := split([group], np.array([p.input_tokens > 2000 for p in group.points]))[0])
    ]


@pytest.fixture(scope="module")
def calibrated(short):
    return fit([group for group in short if group.modelled.gpu.name in ("A10G", "A100-80GB")]).efficiencies


def test_the_published_table_has_its_186_cells():
    groups = published_groups(CATALOG)
    assert {g.modelled.gpu.name: len(g.points) for g in groups} == {"A100-80GB": 57, "A10G": 36, "H100": 57, "L4": 36}
    assert set(PRICES_USD_PER_HOUR) == {g.modelled.gpu.name for g in groups}


def test_a_choice_is_judged_by_measured_value(short, monkeypatch):
    # A model that predicts exactly what was measured always chooses well; one that swears by H100 does not.
    import accuracy_figures as module

    from melange.perfmodel.calibrate import Prediction

    def oracle(group, efficiencies):
        zero = np.zeros(len(group.points))
        return Prediction(rate_log_error=zero, tpot_log_error=zero, ttft_log_error=zero)

    def fan(group, efficiencies):
        zero = np.full(len(group.points), 10.0 if group.modelled.gpu.name == "H100" else 0.0)
        return Prediction(rate_log_error=zero, tpot_log_error=zero, ttft_log_error=zero)

    monkeypatch.setattr(module, "predict", oracle)
    assert all(chosen_well(short, Efficiencies()).values())
    monkeypatch.setattr(module, "predict", fan)
    assert np.mean(list(chosen_well(short, Efficiencies()).values())) < 0.3


def test_the_heatmaps_sides_are_reached(shared, calibrated):
    sides = read_heatmap(shared / "reference/melange/heatmap_a100_v_a10g.csv")
    assert sum(cell.margin > CLOSE for cell in sides) == 28
    assert np.mean(list(a100_sides_right(sides, calibrated, CATALOG).values())) >= 0.9
    big = read_heatmap(shared / "reference/melange/heatmap_2xh100_v_2xa100_llama2_70b.csv")
    assert len(big) == 36
    assert h100_side_share(big, calibrated, CATALOG) >= 0.8


def test_sides_are_counted_both_ways(shared, calibrated):
    big = read_heatmap(shared / "reference/melange/heatmap_2xh100_v_2xa100_llama2_70b.csv")
    other = {"2xA100": "2xH100", "2xH100": "2xA100"}
    swapped = [
        HeatmapCell(input_tokens=c.input_tokens, output_tokens=c.output_tokens, best=other[c.best], margin=c.margin)
        for c in big
    ]
    share = h100_side_share(big, calibrated, CATALOG)
    assert h100_side_share(swapped, calibrated, CATALOG) == pytest.approx(1 - share)


def test_regret_is_never_negative_and_zero_for_a_perfect_model(calibrated, monkeypatch):
    for spread in decision_regret([calibrated], CATALOG).values():
        assert spread.least >= -1e-6
        assert spread.greatest < 0.5
    import accuracy_figures as module

    monkeypatch.setattr(module, "_estimated_like", lambda published, efficiencies, catalog: published)
    for spread in decision_regret([Efficiencies()], CATALOG).values():
        assert spread.greatest == pytest.approx(0, abs=1e-6)


def test_a_broken_heatmap_is_refused(tmp_path):
    (tmp_path / "h.csv").write_text("input,output\n1,2\n")
    with pytest.raises(InputError, match="not a heatmap"):
        read_heatmap(tmp_path / "h.csv")


def test_a_spread_is_median_least_greatest():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(median=2.0, least=1.0, greatest=3.0)


def test_the_page_states_regret_first_and_is_what_the_command_writes(shared):
    page = render_accuracy(measure_accuracy(shared / "reference/melange", splits=2, regret_splits=1))
    committed = (Path(__file__).parents[2] / "docs/accuracy.md").read_text()
    titles = [re.findall(r"^## .*", text, re.M) for text in (page, committed)]
    assert titles[0] == titles[1][: len(titles[0])] or set(titles[0]) <= set(titles[1])
    assert titles[1][0] == titles[0][0] == "## Decision regret"
    # What does not depend on the number of splits must be the same in both.
    fixed = re.compile(r"^\| (?:priors only|L4 \||A10G \||H100 \||A100-80GB \|).*", re.M)
    assert fixed.findall(page) == fixed.findall(committed)
    assert page.index("This is no blind test") > page.index("## How to read this")
    assert "35 of its 36 sides" in page


def test_a_folder_without_the_heatmaps_is_named(tmp_path):
    with pytest.raises(InputError, match=r"does not hold heatmap_a100_v_a10g\.csv and heatmap_2xh100"):
        measure_accuracy(tmp_path)


def test_unseen_sizes_are_pooled_over_splits():
    good = [{(1.0, 1.0): True, (2.0, 1.0): False}, {(1.0, 1.0): False, (2.0, 1.0): False}]
    assert _share_among(good, [{(1.0, 1.0), (9.0, 9.0)}, {(1.0, 1.0), (2.0, 1.0)}]) == pytest.approx(1 / 3)
    assert np.isnan(_share_among(good, [set(), set()]))


def test_the_script_writes_the_page(shared, tmp_path):
    from accuracy import accuracy
    from click.testing import CliRunner

    page = tmp_path / "accuracy.md"
    arguments = [str(shared / "reference/melange"), "--splits", "1", "-o", str(page)]
    assert CliRunner().invoke(accuracy, arguments, catch_exceptions=False).exit_code == 0
    assert page.read_text().startswith("# How accurate the performance model is")
