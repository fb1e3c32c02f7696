"""Drawing helpers: what they put on axes."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from melange import InputError, plan_fleet
from melange.report.figures import draw_bars, draw_heatmap, draw_names, draw_shares, figure_bytes


def test_heatmap_writes_known_values_alone():
    axes = Figure().subplots()
    draw_heatmap(axes, np.array([[1.0, np.nan], [-3.0, 4.0]]), [10, 20], [1, 2], title="x", limit=5)
    assert [text.get_text() for text in axes.texts] == ["1", "-3", "4"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["10", "20"]


def test_names():
    axes = Figure().subplots()
    draw_names(axes, [["L4", None], ["A100-80GB", "L4"]], [10, 20], [1, 2], title="best")
    assert [text.get_text() for text in axes.texts] == ["L4", "A100", "L4"]


def test_shares_of_a_plan_sum_to_the_whole(small_spec):
    plan = plan_fleet(small_spec)
    total = np.zeros(len(plan.buckets))
    for config in plan.replicas:
        axes = Figure().subplots()
        draw_shares(axes, plan, config)
        total += [float(text.get_text()) for text in axes.texts]
    assert total == pytest.approx(np.full(len(plan.buckets), 100.0), abs=len(plan.replicas))


def test_bars():
    axes = Figure().subplots()
    draw_bars(axes, [1, 2, 4], {"ours": [1, 2, 3], "theirs": [2, 3, 4]}, ylabel="$/h")
    assert [bar.get_height() for bar in axes.patches] == [1, 2, 3, 2, 3, 4]


@pytest.mark.parametrize("name", ["png", "svg", "pdf"])
def test_same_figure_same_bytes(name):
    def drawn():
        figure = Figure()
        draw_bars(figure.subplots(), ["a"], {"x": [1.0]}, ylabel="y")
        return figure_bytes(figure, name)

    assert drawn() == drawn()


def test_unknown_format():
    with pytest.raises(InputError, match="use one of"):
        figure_bytes(Figure(), "gif")
