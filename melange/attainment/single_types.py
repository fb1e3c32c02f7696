"""single_types: every GPU type alone, sized to the promise that the mixed fleet keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from melange.attainment.fleet_search import FleetSearch
from melange.attainment.fleets import Counts, allowed
from melange.attainment.promise import sized_fleet
from melange.plan.promise import SizedFleet
from melange.simulator.metrics import lone_met, lone_within

MOST_TIMES = 8.0
"""How many times the machines that the SLO's rates ask for are tried before a type is given up."""
ROUGHLY = 0.02
"""Relative width of the bracket that a large fleet's size is narrowed to."""
ALIKE = 1.1
"""Machines of one GPU type that look up to this much dearer than the cheapest of them are sized too."""


def sized_singles(search: FleetSearch) -> dict[str, Counts | SizedFleet]:
    """For every GPU type the cheapest fleet of one kind of its machines that looks like passing, or why there is none.

    Sizes are found by quick looks, so a fleet that passes here has yet to be confirmed.
    """
    offers, prices = search.ground.choices.offers, search.problem.price_usd_per_hour
    guesses = {i: guess for i in range(len(offers)) if (guess := _guess(search, i)) is not None}
    places = {offer.gpu: [i for i, other in enumerate(offers) if other.gpu == offer.gpu] for offer in offers}
    # The cheapest first, should the budget of simulated requests not last for all.
    usd = {gpu: min((float(prices[i]) * guesses[i] for i in own if i in guesses), default=0.0)
           for gpu, own in places.items()}  # fmt: skip
    found: dict[str, Counts | SizedFleet] = {}
    for gpu in sorted(places, key=lambda gpu: (usd[gpu], gpu)):
        found[gpu] = _sized(search, gpu, {i: guesses[i] for i in places[gpu] if i in guesses})
    return {gpu: found[gpu] for gpu in places}


def _sized(search: FleetSearch, gpu: str, guesses: Mapping[int, int]) -> Counts | SizedFleet:
    if not guesses:
        return SizedFleet(reason="it cannot hold or carry the requests")
    if search.is_spent and any(result.passed for result in search.results.values()):
        return SizedFleet(reason="the search ended before it was sized")
    lone = lone_share(search, [c for c, i in enumerate(search.problem.config_instance) if int(i) in guesses])
    if lone < search.trials.target:
        return SizedFleet(reason=f"alone on an idle one, only {100 * lone:.2f}% of the requests keep the SLO")
    sizes = {i: found for i, guess in guesses.items() if (found := _allowed_sizes(search, i, guess))}
    if not sizes:
        return SizedFleet(reason="the limits allow no fleet of it alone")
    search.progress(f"sizing {gpu} alone")
    prices = search.problem.price_usd_per_hour
    costs = {i: float(prices[i]) * guesses[i] for i in sizes}
    # What costs nothing may not suffice: the cheapest of what is rented is sized beside it.
    paid = [cost for cost in costs.values() if cost > 0]
    likely = [i for i in sizes if costs[i] <= ALIKE * min(paid, default=0.0)]
    sized = [counts for i in likely if (counts := _least_passing(search, i, guesses[i], sizes[i])) is not None]
    for i in sorted(set(sizes) - set(likely), key=lambda i: (float(prices[i]), i)):
        if not _is_misjudged(search, i):
            continue
        below = min((search.cost(counts) for counts in sized), default=np.inf) * (1 - 1e-9)
        cheaper = [n for n in sizes[i] if search.cost(_of(search, i, n)) < below]
        if cheaper and search.screen([_of(search, i, cheaper[-1])])[0]:
            least = _least_passing(search, i, min(guesses[i], cheaper[-1]), range(cheaper[0], cheaper[-1] + 1))
            sized += [] if least is None else [least]
    if not sized:
        return SizedFleet(reason="no fleet of it alone looked like keeping the promise")
    return min(sized, key=lambda counts: (search.cost(counts), counts))


def _is_misjudged(search: FleetSearch, i: int) -> bool:
    """Whether a type serves some size in time by no rate, so that its guess is of no use: in simulation it may pass."""
    on_it = search.problem.config_instance == i
    return bool(np.isinf(search.problem.load[:, on_it]).all(axis=1).any())


def _guess(search: FleetSearch, i: int) -> int | None:
    """How many machines of a type the rates under the SLO ask for; None where they cannot carry the demand at all."""
    one = np.zeros(len(search.problem.instances), dtype=np.int64)
    one[i] = 1
    if search.model.least.exact(one) <= 0:
        return None
    scale = search.model.capacities[0].exact(one)
    return max(1, int(np.ceil(1 / scale - 1e-9)))


def _allowed_sizes(search: FleetSearch, i: int, guess: int) -> range:
    """The numbers of machines of a type, and of no other, that the limits allow, up to MOST_TIMES the guess."""
    within = [n for n in range(1, int(MOST_TIMES * guess) + 1) if allowed(search.problem, _of(search, i, n))]
    return range(within[0], within[-1] + 1) if within else range(0)


def _least_passing(search: FleetSearch, i: int, guess: int, sizes: range) -> Counts | None:
    """The fewest machines of a type that pass a quick look: galloping from a guess, then halving the bracket."""

    def passes(count: int) -> bool:
        counts = _of(search, i, count)
        return search.carries(counts) and search.screen([counts])[0]

    below = sizes[0] - 1
    failing, passing, count = below, None, max(sizes[0], min(guess, sizes[-1]))
    while passing is None and count in sizes:
        if passes(count):
            passing = count
        else:
            # The most that is allowed is tried too.
            failing, count = count, max(count + 1, min(round(1.4 * count), sizes[-1]))
    if passing is None:
        return None
    while passing - failing > max(1, ROUGHLY * passing):
        # Below the guess most fleets fail, and the nearest sizes are the likeliest.
        near = max(failing + 1, min(passing - 1, round(0.7 * passing)))
        middle = near if failing == below else (failing + passing) // 2
        failing, passing = (failing, middle) if passes(middle) else (middle, passing)
    return _of(search, i, passing)


def _of(search: FleetSearch, i: int, count: int) -> Counts:
    """So many machines of a type, beside rented ones whatever machines of the same GPU are owned."""
    offers, limits = search.ground.choices.offers, search.problem.limits
    owned = {
        place: min(
            (limit.maximum for limit in limits if limit.maximum is not None and offer.key in limit.weights), default=0
        )
        for place, offer in enumerate(offers)
        if offer.owned and offer.gpu == offers[i].gpu and not offers[i].owned
    }
    return tuple(count if place == i else owned.get(place, 0) for place in range(len(search.problem.instances)))


def cheapest_single(search: FleetSearch, singles: dict[str, Counts | SizedFleet]) -> Counts | None:
    """The cheapest of the sized fleets that stands the sequential test, one machine more where it falls short of it."""
    sized = [found for found in singles.values() if not isinstance(found, SizedFleet)]
    for counts in sorted(sized, key=lambda counts: (search.cost(counts), counts)):
        paid = [bool(n) and not free for n, free in zip(counts, search.problem.is_free, strict=True)]
        one_more = tuple(n + (more if any(paid) else n > 0) for n, more in zip(counts, paid, strict=True))
        for tried in (counts, one_more):
            if allowed(search.problem, tried) and search.screen([tried])[0] and search.confirm(tried):
                return tried
    return None


def report_singles(search: FleetSearch, singles: dict[str, Counts | SizedFleet]) -> dict[str, SizedFleet]:
    """What is known of every GPU type alone, fleets that the mixed search has judged included."""
    offers = search.ground.choices.offers
    result = {}
    for gpu, found in singles.items():
        others = [i for i, offer in enumerate(offers) if offer.gpu != gpu]
        passed = [c for c, r in search.results.items() if r.passed and not any(c[i] for i in others)]
        best = min(passed, key=lambda counts: (search.cost(counts), counts), default=None)
        plan = None if best is None else search.plan(best)
        if best is None or plan is None:
            reason = "no fleet of it alone that looked good stood the test"
            result[gpu] = found if isinstance(found, SizedFleet) else SizedFleet(reason=reason)
        else:
            result[gpu] = sized_fleet(plan, search.results[best])
    return result


def lone_share(search: FleetSearch, configs: Sequence[int] | None = None) -> float:
    """What of the SLO's share is attained where each of some configs (all by default) is idle: no fleet exceeds it."""
    names = search.problem.configs
    chosen = [names[c] for c in (range(len(names)) if configs is None else configs)]
    clocks = [search.ground.clocks[name].clock for name in chosen if name in search.ground.clocks]
    if not clocks:
        return 0.0
    arrivals, slo = search.arrivals, search.ground.choices.spec.slo
    sizes = arrivals.input_tokens, arrivals.output_tokens
    joint = np.any([lone_met(clock, slo, *sizes) for clock in clocks], axis=0)
    within = [lone_within(clock, slo, *sizes) for clock in clocks]
    each = {name: float(np.any([kept[name] for kept in within], axis=0).mean()) for name in slo.quantiles}
    return slo.attained(each, float(joint.mean()))
