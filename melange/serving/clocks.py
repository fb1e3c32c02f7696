"""ClockKind: what the times of an engine's iterations are taken from."""

from __future__ import annotations

from typing import Literal, TypeAlias

ClockKind: TypeAlias = Literal["kernels", "datasheet"]
"""``kernels``: measured times of kernels and an engine's costs; ``datasheet``: peak rates times efficiencies."""
