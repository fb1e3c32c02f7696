"""The kinds of numpy array that values hold and functions speak of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
TextArray = NDArray[np.str_]


def five_digits(value: float) -> float:
    """A figure at the digits that files and tables of estimates hold."""
    return float(f"{value:.5g}")
