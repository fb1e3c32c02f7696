"""Speculation: how an engine drafts tokens ahead, and what a step that verifies them yields."""

from __future__ import annotations

from dataclasses import dataclass

from melange.errors import InputError

METHODS = ("mtp", "eagle", "ngram")
"""How tokens are drafted: the model's own extra layer, an EAGLE head, earlier text."""

MOST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Speculation:
    """``tokens`` drafted a step and sequence, each accepted with probability ``acceptance`` if all before it are.

    Acceptance differs by workload: it is the user's figure, independent and the same at every position as Leviathan et
    al. take it (arXiv 2211.17192, section 3).
    """

    tokens: int
    acceptance: float
    method: str = "mtp"

    def __post_init__(self) -> None:
        if isinstance(self.tokens, bool) or not isinstance(self.tokens, int) or not 1 <= self.tokens <= MOST_TOKENS:
            raise InputError(f"speculation drafts {self.tokens} tokens", fix=f"give 1 to {MOST_TOKENS}")
        if not 0 <= self.acceptance <= 1:
            raise InputError(f"speculation's acceptance is {self.acceptance}", fix="give a share, 0 to 1")
        if self.method not in METHODS:
            raise InputError(f"speculation's method is {self.method!r}", fix=f"use one of {', '.join(METHODS)}")

    @classmethod
    def parse(cls, text: str) -> Speculation:
        """From ``<tokens>:<acceptance>[:<method>]``, such as ``3:0.7:mtp``."""
        tokens, *rest = text.split(":")
        try:
            count, acceptance = int(tokens), float(rest[0])
        except (ValueError, IndexError):
            rest = []
            count, acceptance = 0, 0.0
        if len(rest) not in (1, 2):
            raise InputError(
                f"speculation is {text[:60]!r}", fix="write <tokens>:<acceptance>[:<method>], such as 3:0.7:mtp"
            )
        return cls(count, acceptance, *rest[1:])

    @property
    def yielded_tokens(self) -> float:
        """Tokens that a step adds to a sequence on average: (1 - a^(k+1)) / (1 - a), arXiv 2211.17192, equation 1."""
        return sum(self.acceptance**position for position in range(self.tokens + 1))

    def draft_share(self, layers: int) -> float:
        """What drafting a token costs of the model's own matrix products: one of its layers, or nothing by n-grams."""
        return 0.0 if self.method == "ngram" else 1.0 / layers

    def describe(self) -> str:
        return f"{self.tokens} tokens drafted by {self.method} at an acceptance of {self.acceptance:g}"
