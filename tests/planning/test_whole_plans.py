"""Whole plans beside a second formulation: one dense program of this file's own, from sizes and prices to the cost.

It shares no code with the planner: its own interpolation, its own offers and limits, SciPy's milp in place of PuLP.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from melange import ProfileChoice, SizeGrid, Slo, SolveOptions, Workload, WorkloadSpec, plan_fleet
from melange.capacity.profile import profile_from
from melange.catalog.instances import InstanceType
from melange.catalog.offers import PriceChoice
from melange.measurements.measurement import Measurement

SIZES = (100, 400, 1000)
GPUS = ("L4", "H100")
GRID = SizeGrid(input_edges_tokens=(200, 1000), output_edges_tokens=(300, 1000))
SLO = Slo(tpot_s=0.1, tpot_definition="decode")


def capacity(gpu: str, tp: int, speed: float, i: int, o: int) -> float:
    """A made-up rate per second, which TP raises by less than its degree."""
    return speed * tp**0.8 * {"L4": 1.0, "H100": 4.0}[gpu] * 900 / (i + 12 * o)


@st.composite
def cases(draw):
    machines = draw(st.lists(st.sampled_from([("L4", 1), ("L4", 4), ("H100", 1), ("H100", 2), ("H100", 8)]), min_size=1,
                             max_size=3, unique=True))  # fmt: skip
    offers = tuple(
        InstanceType(
            name=f"box-{gpu}-{n}",
            gpu=gpu,
            gpus=n,
            price_usd_per_hour=n * draw(st.integers(4, 40)) / 8,
            memory_gib=24.0,
            provider="me",
            price_set="mine",
        )
        for gpu, n in machines
    )
    gpus = {gpu for gpu, _ in machines}
    configs = {(g, tp) for g in gpus for tp in draw(st.sampled_from([(1,), (1, 2), (1, 4)]))}
    # 0: cannot keep the SLO there at any load.
    dead = {(g, tp, i, o) for g, tp in configs for i in SIZES for o in SIZES if draw(st.integers(0, 9)) == 0}
    speeds = {key: draw(st.floats(0.5, 2.0)) for key in sorted(configs)}
    rates = {
        (g, tp, i, o): 0.0 if (g, tp, i, o) in dead else capacity(g, tp, speeds[g, tp], i, o)
        for g, tp in configs for i in SIZES for o in SIZES
    }  # fmt: skip
    demand = np.array([[draw(st.sampled_from([0.0, 0.3, 2.0, 7.5])) for _ in range(2)] for _ in range(2)])
    demand[0, 0] += 0.1
    means = np.array(
        [[[draw(st.integers(1, 200)), draw(st.integers(201, 1000))][i] for _ in range(2)] for i in range(2)]
    )
    outs = np.array(
        [[[draw(st.integers(1, 300)), draw(st.integers(301, 1000))][j] for j in range(2)] for _ in range(2)]
    )
    caps = {g: draw(st.integers(0, 12)) for g in sorted(gpus) if draw(st.booleans())}
    floors = {o.name: draw(st.integers(1, 2)) for o in offers if draw(st.integers(0, 3)) == 0}
    return offers, rates, demand, means, outs, caps, floors, draw(st.sampled_from([0.0, 0.25])), draw(st.booleans())


def rate_at(table: dict[tuple[int, int], float], i: float, o: float) -> float:
    """Requests/s at a size: seconds per request interpolated in logarithms, flat below the smallest size."""

    def around(x: float) -> list[tuple[int, float]]:
        if x <= SIZES[0]:
            return [(SIZES[0], 1.0)]
        low, high = next((a, b) for a, b in itertools.pairwise(SIZES) if a < x <= b)
        share = math.log(x / low) / math.log(high / low)
        return [(low, 1 - share), (high, share)]

    seconds = 0.0
    for (a, wa), (b, wb) in itertools.product(around(i), around(o)):
        if wa * wb > 0:
            if table[a, b] == 0:
                return 0.0
            seconds -= wa * wb * math.log(table[a, b])
    return math.exp(-seconds)


def second_opinion(case) -> float | None:
    """The least cost by a dense program over shares, replicas and machines; None if there is no fleet."""
    offers, rates, demand, means, outs, caps, floors, headroom, tied = case
    degrees = sorted({(g, tp) for g, tp, _, _ in rates})
    configs = [(k, tp) for k, offer in enumerate(offers) for g, tp in degrees if g == offer.gpu and tp <= offer.gpus]
    cells = [(i, j) for i in range(2) for j in range(2) if demand[i, j] > 0]
    n_x, n_c = len(cells) * len(configs), len(configs)
    size = n_x + n_c + len(offers)
    upper = np.full(size, np.inf)
    rows, low, high = [], [], []

    def add(entries: dict[int, float], least: float, most: float) -> None:
        row = np.zeros(size)
        for place, value in entries.items():
            row[place] = value
        rows.append(row), low.append(least), high.append(most)

    carried: list[dict[int, float]] = [{} for _ in configs]
    for b, (i, j) in enumerate(cells):
        for c, (k, tp) in enumerate(configs):
            table = {(a, o): r for (g, d, a, o), r in rates.items() if (g, d) == (offers[k].gpu, tp)}
            rate = rate_at(table, means[i, j], outs[i, j])
            x = b * n_c + c
            upper[x] = 1.0 if rate > 0 else 0.0
            carried[c][x] = demand[i, j] * (1 + headroom) / rate if rate > 0 else 0.0
        add({b * n_c + c: 1.0 for c in range(n_c)}, 1, 1)
    if tied:
        for (b, (i, _)), (other, (i2, _)) in itertools.combinations(enumerate(cells), 2):
            for c in range(n_c) if i == i2 else ():
                add({b * n_c + c: 1.0, other * n_c + c: -1.0}, 0, 0)
    for c in range(n_c):
        add({**carried[c], n_x + c: -1.0}, -np.inf, 0)
    for k, offer in enumerate(offers):
        used = {n_x + c: float(tp) for c, (home, tp) in enumerate(configs) if home == k}
        add({**used, n_x + n_c + k: -float(offer.gpus)}, -np.inf, 0)
        if offer.name in floors:
            add({n_x + n_c + k: 1.0}, floors[offer.name], np.inf)
    for gpu, most in caps.items():
        add({n_x + n_c + k: float(o.gpus) for k, o in enumerate(offers) if o.gpu == gpu}, 0, most)
    whole = np.r_[np.zeros(n_x), np.ones(n_c + len(offers))]
    prices = np.r_[np.zeros(n_x + n_c), [o.price_usd_per_hour for o in offers]]
    answer = milp(
        prices, constraints=LinearConstraint(np.array(rows), low, high), bounds=Bounds(0, upper), integrality=whole,
        options={"mip_rel_gap": 0.0},
    )  # fmt: skip
    assert answer.status in (0, 2)
    return float(answer.fun) if answer.status == 0 else None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_a_plan_costs_what_a_second_formulation_says(case):
    offers, rates, demand, means, outs, caps, floors, headroom, tied = case
    points = [
        Measurement(model="m", gpu=g, tp=tp, input_tokens=i, output_tokens=o, loop="capacity", achieved_rps=r)
        for (g, tp, i, o), r in rates.items()
    ]
    spec = WorkloadSpec(
        workload=Workload(
            name="w",
            grid=GRID,
            rate_rps=demand,
            mean_input_tokens=means,
            mean_output_tokens=outs,
            mean_product_tokens2=means * outs,
            mean_cached_tokens=np.zeros((2, 2)),
            slo=SLO,
        ),
        profiles=ProfileChoice(files=("unused",)),
        prices=PriceChoice(price_set="mine"),
    )
    asked = spec.with_offers(offers).with_headroom(headroom).limited(maximum=caps, minimum=floors)
    options = SolveOptions(tie_outputs=tied, gap=0.0)
    plan = plan_fleet(asked, options, profile=profile_from(points, SLO, assume_slo=True))
    wanted = second_opinion(case)
    if wanted is None:
        assert plan.status == "infeasible"
        assert plan.reasons
        return
    assert plan.status == "optimal"
    assert plan.cost_usd_per_hour == pytest.approx(wanted, abs=1e-6)
    assert_adds_up(plan, offers, demand, means, outs)


def assert_adds_up(plan, offers, demand, means, outs):
    """Costs, utilisation, savings and limits by arithmetic on the plan's own figures."""
    machines = {c.instance_key: c for c in plan.configs.values()}
    cost = math.fsum(n * machines[key].price_usd_per_hour for key, n in plan.instances.items())
    assert plan.cost_usd_per_hour == pytest.approx(cost)
    hourly = 3600 * demand / 1e6
    assert plan.costs.usd_per_million_input_tokens == pytest.approx(cost / (hourly * means).sum())
    assert plan.costs.usd_per_million_output_tokens == pytest.approx(cost / (hourly * outs).sum())
    assert plan.costs.usd_per_million_tokens == pytest.approx(cost / (hourly * (means + outs)).sum())
    for key, count in plan.instances.items():
        gpus = sum(
            plan.configs[name].tp * n for name, n in plan.replicas.items() if plan.configs[name].instance_key == key
        )
        assert gpus <= count * machines[key].gpus_per_instance
    for name, replicas in plan.replicas.items():
        busy = sum(b.rate_rps * b.shares[name] / b.max_rate_rps[name] for b in plan.buckets if name in b.shares)
        assert plan.utilization[name] == pytest.approx(busy / replicas)
        assert busy * (1 + plan.headroom) <= replicas + 1e-6
    costs = {gpu: b.cost_usd_per_hour for gpu, b in plan.baselines.items() if b.cost_usd_per_hour is not None}
    for gpu, alone in costs.items():
        assert plan.baselines[gpu].savings == pytest.approx(1 - cost / alone)
        assert {machines[key].gpu for key in plan.baselines[gpu].instances} == {gpu}
    assert plan.best_single_type == (min(costs, key=costs.get) if costs else None)
    for limit in plan.limits:
        weigh = {o.name: (o.gpus if limit.name == o.gpu else 1) for o in offers if limit.name in (o.gpu, o.name)}
        used = sum(weigh.get(machines[key].instance, 0) * n for key, n in plan.instances.items())
        assert limit.used == used
        assert used <= limit.value if limit.kind == "max" else used >= limit.value
