"""docs/accuracy.md: the performance model's errors, as a page."""

from __future__ import annotations

from accuracy_figures import Accuracy, Spread
from public_page import PublicErrors, render_public, table


def render_accuracy(found: Accuracy, public: PublicErrors | None = None) -> str:
    """The page, decision regret first; every figure comes from what was found."""
    return "\n".join(
        [
            "# How accurate the performance model is",
            "",
            "Written by `tests/benchmarks/accuracy.py`; do not edit. Two judgements: of today's engines and GPUs by",
            "public measurements, at the end; and of what a calibration is worth for choosing fleets, by the paper's",
            "own figures. There the model is fitted to part of the published Llama-2-7b table (saturation throughputs,",
            "vLLM 0.2.7, on the datasheet's clock) and judged on the rest. No parameter is fitted to the heatmaps.",
            "",
            *_regret(found),
            *_errors(found),
            *_choices(found),
            *_left_out(found),
            *_measured(found),
            *_reading(found),
            *([] if public is None else render_public(public)),
        ]
    )


def _regret(found: Accuracy) -> list[str]:
    lines = [
        "## Decision regret",
        "",
        "Fleets for the Arena workload chosen on estimated rates, then paid for under the published ones (what was",
        "rented stays rented, what is missing is added): how much dearer than the cheapest fleet. Median",
        f"(least-greatest) over {found.regret_splits} seeded splits.",
        "",
    ]
    rates = list(next(iter(found.regret.values())))
    lines += table(
        ("rates from", *(f"{rate:g} req/s" for rate in rates)),
        [(name, *(_spread(per_rate[rate]) for rate in rates)) for name, per_rate in found.regret.items()],
    )
    return [*lines, ""]


def _errors(found: Accuracy) -> list[str]:
    rows = [("held-out half, A10G and A100", "8%", _spread(found.held_out), _passed(found.held_out.median <= 0.08))]
    for gpu, spread in found.unseen.items():
        bar = {"L4": 0.14}.get(gpu)
        passed = "no bar" if bar is None else _passed(spread.median <= bar)
        rows.append((f"{gpu}, never fitted", "-" if bar is None else f"{100 * bar:g}%", _spread(spread), passed))
    prior = ", ".join(f"{gpu} {_percent(error)}" for gpu, error in found.prior_errors.items())
    return [
        "## Throughput error",
        "",
        "Median over cells of |predicted / measured - 1|, inputs up to 2000 tokens; fitted to half of the A10G and",
        f"A100 cells, median (least-greatest) over {found.splits} seeded splits.",
        "",
        *table(("cells", "to reach", "error", ""), rows),
        "",
        f"With priors alone (nothing measured): {prior}.",
        "",
    ]


def _choices(found: Accuracy) -> list[str]:
    rows = [
        (
            f"the GPU with the best predicted T/$ is within 5% of the best ({found.chosen_cells} sizes, 4 GPUs)",
            "90%",
            _spread(found.chosen),
            _passed(found.chosen.median >= 0.9),
            _percent(found.chosen_unseen),
            _percent(found.prior_chosen),
        ),
        (
            f"A10G or A100, {found.side_cells} cells with a margin above 5%",
            "90%",
            _spread(found.sides),
            _passed(found.sides.median >= 0.9),
            _percent(found.sides_unseen),
            _percent(found.prior_sides),
        ),
        (
            f"Llama-2-70b on 2xH100 or 2xA100, {found.sides_70b_cells} cells",
            "80%",
            _spread(found.sides_70b),
            _passed(found.sides_70b.median >= 0.8),
            "-",
            _percent(found.prior_sides_70b),
        ),
    ]
    return [
        "## Choices",
        "",
        "Prices as in the paper. Same splits; 'no cell fitted' counts, over all splits, only the sizes at which",
        "neither the A10G's nor the A100's cell was fitted; the last column uses priors alone.",
        "",
        *table(("right choices", "to reach", "share", "", "no cell fitted", "priors alone"), rows),
        "",
    ]


def _left_out(found: Accuracy) -> list[str]:
    rows = [(gpu, _percent(short), _percent(long)) for gpu, (short, long) in found.left_out.items()]
    return [
        "## Leave one GPU out",
        "",
        "Fitted to the other three GPUs' cells up to 2000 input tokens; median error on the GPU left out.",
        "",
        *table(("GPU", "up to 2000 input tokens", "above"), rows),
        "",
    ]


def _measured(found: Accuracy) -> list[str]:
    if not found.measured:
        return []
    rows = [
        (
            name,
            str(errors.get("points", "-")),
            str(errors.get("folds", "-")),
            _percent(errors.get("held_out_median")),
            _percent(errors.get("held_out_p90")),
        )
        for name, errors in found.measured.items()
    ]
    return [
        "## Own load points",
        "",
        "Calibrations on measured load points, with the error on points held out in k folds.",
        "",
        *table(("calibration", "points", "folds", "median", "90th percentile"), rows),
        "",
    ]


def _reading(found: Accuracy) -> list[str]:
    same, cells = found.sides_in_table
    return [
        "## How to read this",
        "",
        "- This is no blind test. No parameter is fitted to the heatmaps or to the cells called never fitted, but the",
        "  model's structure (which terms it has) was chosen with all of these in view, the H100's cells too.",
        f"- The A10G v A100 heatmap draws the published table: {same} of its {cells} sides follow from the table's",
        "  rates. A fit to half of the table has seen part of it; the column 'no cell fitted' leaves that part out.",
        "- The published table holds saturation throughputs: nothing here tests how a latency limit lowers a rate.",
        "- The published H100 is slower than the fit to A10G and A100 expects, for short prompts and long ones alike,",
        "  and fitting cannot tell why (its host, its software of early 2024). No efficiency is fitted to it. Only the",
        "  share of peak that its matrix products reach with that software is special; it comes from public training",
        "  benchmarks of the time, and was looked up after a first comparison had shown the H100 too fast.",
        "- Most of the model's parameters are common to all GPUs. What differs between GPUs is the datasheet and the",
        "  share of its peak that large matrix products reach, taken from public microbenchmarks.",
        "",
    ]


def _spread(spread: Spread) -> str:
    if spread.least == spread.greatest:
        return _percent(spread.median)
    return f"{_percent(spread.median)} ({_percent(spread.least)}-{_percent(spread.greatest)})"


def _percent(value: object) -> str:
    if not isinstance(value, float | int) or value != value:
        return "-"
    return f"{100 * value:.1f}%"


def _passed(passed: bool) -> str:
    return "reached" if passed else "**not reached**"
