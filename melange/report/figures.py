"""Figures on matplotlib axes, for notebooks and documentation; nothing here imports matplotlib before it is used."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError, MissingExtraError
from melange.files.places import check_place
from melange.plan.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_FORMATS = ("png", "svg", "pdf")


def check_format(image_format: str) -> None:
    """Raise InputError unless figures can be written in this format."""
    if image_format not in FIGURE_FORMATS:
        raise InputError(f"a figure cannot be {image_format!r}", fix=f"use one of {', '.join(FIGURE_FORMATS)}")


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a picture's file name asks for; InputError or MissingExtraError where it cannot be drawn.

    For commands to call before their work, so that none is lost over a picture.
    """
    check_place(path)
    image_format = Path(path).suffix.lstrip(".").lower()
    check_format(image_format)
    new_figure()
    return image_format


def new_figure(width_in: float = 7.0, height_in: float = 5.0) -> Figure:
    """An empty figure; MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", "notebooks", "a figure") from error
    return Figure(figsize=(width_in, height_in), layout="constrained")


def figure_bytes(figure: Figure, image_format: str) -> bytes:
    """The figure as a file's content, the same bytes for the same figure: no date, version or random ids in it."""
    import matplotlib as mpl

    check_format(image_format)
    metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "melange"}):
        figure.savefig(out, format=image_format, dpi=160, metadata=metadata[image_format])
    return out.getvalue()


def draw_heatmap(
    axes: Axes,
    values: FloatArray,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    *,
    title: str,
    limit: float | None = None,
    text: str = "{:.0f}",
) -> None:
    """A table of sizes in colours and numbers: input sizes up, output sizes across, NaN left blank.

    With ``limit`` colours run from red at -limit over white at 0 to blue at +limit, else from light to dark.
    """
    shown = np.ma.masked_invalid(values)
    pale = {"cmap": "Blues", "vmin": 0.0, "vmax": 1.6 * float(shown.max())}  # numbers stay legible on the darkest
    colours: dict[str, Any] = pale if limit is None else {"cmap": "RdBu", "vmin": -limit, "vmax": limit}
    axes.imshow(shown, origin="lower", aspect="auto", alpha=0.75, **colours)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(j, i, text.format(value), ha="center", va="center", fontsize=8)
    _size_axes(axes, input_tokens, output_tokens, title)


def draw_names(
    axes: Axes,
    names: Sequence[Sequence[str | None]],
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    *,
    title: str,
) -> None:
    """A table of sizes with a name in each, one colour a name."""
    known = sorted({name for row in names for name in row if name is not None})
    codes = np.array([[np.nan if name is None else known.index(name) for name in row] for row in names], dtype=float)
    axes.imshow(
        np.ma.masked_invalid(codes), origin="lower", aspect="auto", cmap="Set2", vmin=-0.5, vmax=7.5, alpha=0.75
    )
    for i, row in enumerate(names):
        for j, name in enumerate(row):
            if name is not None:
                axes.text(j, i, name.removesuffix("-80GB"), ha="center", va="center", fontsize=7)
    _size_axes(axes, input_tokens, output_tokens, title)


def draw_shares(axes: Axes, plan: Plan, config: str) -> None:
    """Which share of each bucket a config serves, in percent; buckets without demand are blank."""
    buckets = [b for b in plan.buckets if b.input_tokens_max is not None and b.output_tokens_max is not None]
    inputs = sorted({b.input_tokens_max or 0 for b in buckets})
    outputs = sorted({b.output_tokens_max or 0 for b in buckets})
    shares = np.full((len(inputs), len(outputs)), np.nan)
    for b in buckets:
        at = inputs.index(b.input_tokens_max or 0), outputs.index(b.output_tokens_max or 0)
        shares[at] = 100 * b.share_of(config)
    count = plan.replicas.get(config, 0)
    draw_heatmap(axes, shares, inputs, outputs, title=f"{count} x {config}: % of each size")


def _size_axes(axes: Axes, input_tokens: Sequence[float], output_tokens: Sequence[float], title: str) -> None:
    axes.set_xticks(range(len(output_tokens)), [f"{size:g}" for size in output_tokens])
    axes.set_yticks(range(len(input_tokens)), [f"{size:g}" for size in input_tokens])
    axes.set_xlabel("output tokens")
    axes.set_ylabel("input tokens")
    axes.set_title(title, fontsize=10)


def draw_bars(axes: Axes, groups: Sequence[object], series: Mapping[str, Sequence[float]], *, ylabel: str) -> None:
    """Groups of bars side by side, one bar a series."""
    width = 0.8 / len(series)
    for n, (name, values) in enumerate(series.items()):
        at = np.arange(len(groups)) + (n - (len(series) - 1) / 2) * width
        axes.bar(at, np.asarray(values, dtype=float), width, label=name)
    axes.set_xticks(range(len(groups)), [str(group) for group in groups])
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False)
