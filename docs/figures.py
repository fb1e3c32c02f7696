"""Make the figures of docs/when-mixing-pays.md, and print the numbers that the page quotes.

python docs/figures.py            # writes docs/images/*.svg; needs pip install '.[notebooks]'
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from melange import PriceChoice, Problem, load_workload, solve
from melange.analysis.efficiency import fractional_costs
from melange.analysis.sweep import repriced, sweep_prices, sweep_rates
from melange.report.figures import figure_bytes

IMAGES = Path(__file__).parent / "images"
PRICE_SETS = ("paper-2024", "2026-11")

# Requests/s of one GPU on (short, long) requests, half of each kind.
ONE_SHAPE = {"small": (1.0, 1.0), "large": (4.0, 4.0)}
ONE_SHAPE_PRICES = {"small": 1.0, "large": 3.6}
TWO_SPECIALISTS = {"short": (1.25, 0.8), "long": (0.8, 1.25)}
TWO_SPECIALISTS_PRICES = {"short": 1.0, "long": 1.0}


def toy_savings(table: dict[str, tuple[float, float]], prices: dict[str, float], rate_rps: float) -> float:
    """Savings against the best single type in a world of two GPU types and two sizes."""
    load = rate_rps / 2 / np.array(list(table.values())).T
    problem = Problem(
        buckets=("short", "long"),
        configs=tuple(table),
        instances=tuple(table),
        load=load,
        config_instance=np.arange(2),
        gpus_per_replica=np.ones(2, dtype=int),
        gpus_per_instance=np.ones(2, dtype=int),
        price_usd_per_hour=np.array([prices[name] for name in table]),
    )
    alone = [solve(only).cost_usd_per_hour for name in table if (only := problem.only_instances({name})) is not None]
    mixed = solve(problem).cost_usd_per_hour
    return 1 - (mixed or 0.0) / min(cost for cost in alone if cost is not None)


def toy_limit(table: dict[str, tuple[float, float]], prices: dict[str, float]) -> float:
    """The savings that remain when the rate grows without bound."""
    cost = np.array([[prices[name] / rate for rate in rates] for name, rates in table.items()])
    return float(1 - cost.min(axis=0).sum() / cost.sum(axis=1).min())


def two_causes() -> Figure:
    """Two types of one shape beside two specialists: savings that fade with the rate, and savings that grow with it."""
    rates = np.geomspace(0.25, 64, 97)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    worlds = {
        "same speed ratio at every size": (ONE_SHAPE, ONE_SHAPE_PRICES),
        "each faster at its own sizes": (TWO_SPECIALISTS, TWO_SPECIALISTS_PRICES),
    }
    for axes, (title, (table, prices)) in zip(figure.subplots(1, 2, sharey=True), worlds.items(), strict=True):
        axes.plot(rates, [100 * toy_savings(table, prices, rate) for rate in rates], linewidth=1.2)
        axes.axhline(100 * toy_limit(table, prices), color="black", linestyle=":", label="comparative advantage")
        _rate_axis(axes, (0.25, 1, 4, 16, 64), title)
    return figure


def savings_against_rate() -> Figure:
    """The Arena workload at both price sets: savings at each rate, and their limit."""
    rates = [round(float(rate), 3) for rate in np.geomspace(0.5, 128, 65)]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    spec = load_workload("arena-120ms")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), PRICE_SETS, strict=True):
        priced = spec.with_prices(PriceChoice(price_set=name))
        points = sweep_rates(priced, rates).points
        axes.plot(rates, [100 * (p.plan.savings or 0.0) if p.plan else np.nan for p in points], linewidth=1.2)
        limit = fractional_costs(priced).savings or 0.0
        axes.axhline(100 * limit, color="black", linestyle=":", label="comparative advantage")
        _rate_axis(axes, (0.5, 2, 8, 32, 128), f"Arena, prices {name}")
    return figure


def savings_against_price() -> Figure:
    """The Arena workload at 64 requests/s while the A100's price moves, all else at the paper's prices."""
    prices = [round(float(price), 3) for price in np.linspace(1.0, 6.0, 41)]
    spec = load_workload("arena-120ms").with_rate(64.0)
    points = sweep_prices(spec, "A100-80GB", prices).points
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(prices, [100 * (p.plan.savings or 0.0) if p.plan else np.nan for p in points], label="64 requests/s")
    limits = [_limit_at(price) for price in prices]
    axes.plot(prices, [100 * limit for limit in limits], color="black", linestyle=":", label="comparative advantage")
    axes.set_xlabel("price of an A100-80GB, USD per hour")
    axes.set_ylabel("% saved on the best single type")
    axes.legend(frameon=False)
    return figure


def _limit_at(a100_usd_per_hour: float) -> float:
    spec = repriced(load_workload("arena-120ms"), "A100-80GB", a100_usd_per_hour)
    return fractional_costs(spec).savings or 0.0


def _rate_axis(axes: Axes, ticks: Sequence[float], title: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("requests per second")
    axes.set_ylabel("% saved on the best single type")
    axes.set_ylim(-2, 40)
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, loc="upper right")


def quoted() -> dict[str, str]:
    """The numbers in the page, as they stand there."""
    spec = load_workload("arena-120ms")
    rows = {"limit of the specialists": f"{toy_limit(TWO_SPECIALISTS, TWO_SPECIALISTS_PRICES):.0%}"}
    for name in PRICE_SETS:
        priced = spec.with_prices(PriceChoice(price_set=name))
        rows[f"limit, {name}"] = f"{fractional_costs(priced).savings or 0.0:.1%}"
        for point in sweep_rates(priced, [4, 8, 16, 64]).points:
            saved = None if point.plan is None else point.plan.savings
            rows[f"{point.value:g} requests/s, {name}"] = f"{saved or 0.0:.1%}"
    return rows


def main() -> None:
    """Write every figure, then print what the page quotes."""
    IMAGES.mkdir(exist_ok=True)
    for draw in (two_causes, savings_against_rate, savings_against_price):
        path = IMAGES / f"{draw.__name__.replace('_', '-')}.svg"
        path.write_bytes(figure_bytes(draw(), "svg"))
        sys.stdout.write(f"{path}\n")
    for what, value in quoted().items():
        sys.stdout.write(f"{what}: {value}\n")


if __name__ == "__main__":
    main()
