"""SizeGrid: the (input, output) token buckets that workloads and profiles share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray, IntArray
from melange.errors import InputError

PAPER_INPUT_EDGES_TOKENS = (25, 100, 250, 500, 1000, 2000, 4000, 8000, 12000, 16000)
PAPER_OUTPUT_EDGES_TOKENS = (25, 100, 250, 500, 1000, 2000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeGrid:
    """Upper, inclusive bucket edges in tokens: bucket (i, j) holds (edge[i-1], edge[i]] x (edge[j-1], edge[j]].

    The first bucket of each axis starts above zero tokens.
    """

    input_edges_tokens: tuple[int, ...]
    output_edges_tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("input_edges_tokens", "output_edges_tokens"):
            edges = _checked_edges(name, getattr(self, name))
            object.__setattr__(self, name, edges)

    @classmethod
    def paper(cls, max_input_tokens: int = 16000, max_output_tokens: int = 2000) -> SizeGrid:
        """The paper's grid (arXiv 2404.14527, section 5), cut at the given sizes."""
        return cls(
            input_edges_tokens=tuple(e for e in PAPER_INPUT_EDGES_TOKENS if e <= max_input_tokens),
            output_edges_tokens=tuple(e for e in PAPER_OUTPUT_EDGES_TOKENS if e <= max_output_tokens),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(number of input buckets, number of output buckets)."""
        return len(self.input_edges_tokens), len(self.output_edges_tokens)

    @property
    def max_input_tokens(self) -> int:
        return self.input_edges_tokens[-1]

    @property
    def max_output_tokens(self) -> int:
        return self.output_edges_tokens[-1]

    def upper_edges(self) -> tuple[FloatArray, FloatArray]:
        """Input and output upper edges, each of shape :attr:`shape`."""
        i, o = np.meshgrid(self.input_edges_tokens, self.output_edges_tokens, indexing="ij")
        return i.astype(float), o.astype(float)

    def locate(self, input_tokens: ArrayLike, output_tokens: ArrayLike) -> IntArray:
        """Flat bucket index (input-major) of each size; -1 where a size is zero, negative or above the grid."""
        inputs, outputs = np.asarray(input_tokens), np.asarray(output_tokens)
        i = np.searchsorted(self.input_edges_tokens, inputs, side="left")
        o = np.searchsorted(self.output_edges_tokens, outputs, side="left")
        inside = (i < self.shape[0]) & (o < self.shape[1]) & (inputs > 0) & (outputs > 0)
        return np.where(inside, i * self.shape[1] + o, -1).astype(np.int64)

    def describe(self) -> str:
        return (
            f"input {', '.join(map(str, self.input_edges_tokens))} x "
            f"output {', '.join(map(str, self.output_edges_tokens))}"
        )


def _checked_edges(name: str, edges: Sequence[int]) -> tuple[int, ...]:
    if len(edges) == 0:
        raise InputError(f"{name} is empty", fix="give at least one upper edge")
    for edge in edges:
        if isinstance(edge, bool) or int(edge) != edge or not 0 < edge <= 10**9:
            raise InputError(
                f"{name} holds {edge!r}", fix="edges are positive whole numbers of tokens, a billion at the most"
            )
    for low, high in pairwise(edges):
        if high <= low:
            raise InputError(f"{name} is not ascending: {high} follows {low}", fix="sort the edges")
    return tuple(int(edge) for edge in edges)
