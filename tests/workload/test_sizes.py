from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange import InputError, SizeGrid

EDGES = st.lists(st.integers(1, 5000), min_size=1, max_size=6, unique=True).map(sorted)


@given(EDGES, EDGES, st.integers(-5, 6000), st.integers(-5, 6000))
def test_locate_agrees_with_a_walk_over_the_buckets(inputs, outputs, i, o):
    grid = SizeGrid(input_edges_tokens=tuple(inputs), output_edges_tokens=tuple(outputs))
    expected = -1
    for n, high_i in enumerate(inputs):
        for m, high_o in enumerate(outputs):
            low_i, low_o = ([0, *inputs][n], [0, *outputs][m])
            if low_i < i <= high_i and low_o < o <= high_o:
                expected = n * len(outputs) + m
    assert grid.locate(i, o) == expected


@pytest.mark.parametrize("edges", [(), (0, 5), (10, 10), (20, 10), (1.5,), (True,)])
def test_bad_edges_are_refused(edges):
    with pytest.raises(InputError):
        SizeGrid(input_edges_tokens=edges, output_edges_tokens=(10,))


def test_the_papers_grid():
    assert SizeGrid.paper().shape == (10, 6)
    assert SizeGrid.paper(2000).input_edges_tokens == (25, 100, 250, 500, 1000, 2000)
