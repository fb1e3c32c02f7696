"""The highest rate that given machines carry, by the integer program and by simulation, in each way they can be used.

A way is a tensor-parallel degree (or the mix of degrees with the most slack) at a precision of the weights. By the
program its rate is the largest multiple of the workload's demand that whole replicas of it carry, with as much late by
design as a plan may have and all else in time (:mod:`melange.solver.slack`). By simulation it is the highest rate at
which the target share of the requests keeps the SLO jointly and no queue grows, on the same seeds at every rate and in
every way, found by bisection to a stated resolution: as if whatever is below a rate that holds held too. That the queue
must not grow counts where the SLO does not limit the wait for the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from melange.arrays import IntArray
from melange.attainment.asked_fleet import AskedFleet, asked_fleet, priced
from melange.attainment.trial import Trials
from melange.errors import InfeasibleError, InputError
from melange.files.shown import short_repr
from melange.plan.costs import describe_instances
from melange.plan.plan import Plan
from melange.planning.fleet_notation import FleetPart, machine_of, parse_fleet
from melange.planning.owned import owned_machines, usable_offers
from melange.planning.spec import ANY, WorkloadSpec
from melange.simulator.arrivals import drawn_process
from melange.simulator.clocks import plan_clocks
from melange.simulator.metrics import RequestOutcomes, attainment_of
from melange.simulator.simulate import LEAST_SPAN_S, SimulationOptions, replications_of
from melange.solver.slack import most_slack

if TYPE_CHECKING:
    from pandas import DataFrame

    from melange.simulator.clocks import ConfigClock

SCHEMA_VERSION = 1
TARGET = 0.99
"""The share of requests that must keep an SLO which names none."""
RESOLUTION = 0.02
PROGRAM_RESOLUTION = 0.005
REPLICATIONS = 2
LEAST_REQUESTS = 5_000
MOST_REQUESTS = 50_000
FIRST_STEP = 1.15
GIVEN_UP = 500.0
"""Below the first rate tried over this, machines are said to carry nothing."""
GROWS = 0.05
"""Seconds that the wait for the first token grows by in a second, beyond which requests come faster than are served."""
DEGREES = (1, 2, 4, 8, 16)
OTHER_PRECISIONS = ("fp8", "int8")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WayRate:
    """One way to use the machines, and the highest rates that it carries.

    ``replicas`` by config; ``precision`` of the weights (several joined by /), ``is_open`` whether the workload leaves
    it open. ``program_rps``: 0 where more than may be late is not served in time whatever the rate. ``simulated_rps``
    is None where it was not simulated, 0 where no rate keeps the SLO; ``attainment`` is the simulated share at that
    rate.
    """

    label: str
    precision: str
    is_open: bool
    replicas: Mapping[str, int]
    program_rps: float
    simulated_rps: float | None = None
    attainment: float | None = None

    @property
    def rate_rps(self) -> float:
        """The simulated rate, that by the program where none was simulated."""
        return self.program_rps if self.simulated_rps is None else self.simulated_rps


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRates:
    """What machines carry of a workload: ``ways``, the highest rate first.

    ``target``: the share of requests that keeps the SLO in simulation, as ``slo_text`` says. ``left_out`` says which
    ways cannot be, and why. ``resolution``: rates are found to this, relative. The simulations' settings are told as
    they were.
    """

    workload: str
    model: str | None
    machines: Mapping[str, int]
    cost_usd_per_hour: float
    slo_text: str
    target: float
    ways: tuple[WayRate, ...]
    resolution: float
    requests: int
    replications: int
    seed: int
    arrivals: str
    policy: str
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def best(self) -> WayRate | None:
        """The way of the highest rate among the precisions that the workload leaves open; None if none carries any."""
        return next((way for way in self.ways if way.is_open and way.rate_rps > 0), None)

    @property
    def advice(self) -> str | None:
        """What another precision would carry, where that is more; whether it may is a decision about quality."""
        best = max((way for way in self.ways if not way.is_open), key=lambda way: way.rate_rps, default=None)
        own = 0.0 if self.best is None else self.best.rate_rps
        if best is None or best.rate_rps <= own * (1 + self.resolution):
            return None
        more = f" ({100 * (best.rate_rps / own - 1):.0f}% more)" if own else ""
        return (
            f"with {best.precision} weights {best.label} would carry {best.rate_rps:.3g} req/s{more}: whether answers "
            f"stay good enough is yours to say (--precision {best.precision})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the best way and the advice."""
        record = {"schema_version": self.schema_version, **asdict(self)}
        return record | {"best": None if self.best is None else asdict(self.best), "advice": self.advice}

    def to_frame(self) -> DataFrame:
        """One row a way.

        Index ``way``. Columns: ``precision``, ``is_open``, ``replicas`` in words, ``program_rps``, ``simulated_rps``
        and ``attainment`` (NaN where not simulated).
        """
        import pandas as pd

        rows = [
            {
                "precision": way.precision,
                "is_open": way.is_open,
                "replicas": describe_instances(way.replicas),
                "program_rps": way.program_rps,
                "simulated_rps": way.simulated_rps,
                "attainment": way.attainment,
            }
            for way in self.ways
        ]
        frame = pd.DataFrame(rows, index=pd.Index([way.label for way in self.ways], name="way"))
        return frame.astype({"simulated_rps": float, "attainment": float})

    def __repr__(self) -> str:
        best = self.best
        carried = "no rate" if best is None else f"{best.rate_rps:.3g} req/s as {best.label}, {best.precision}"
        return short_repr("MachineRates", f"{describe_instances(self.machines)} carry {carried} of {self.workload}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Way:
    """A way before it is simulated: its plan, the clocks, and the rate to begin at."""

    rate: WayRate
    plan: Plan
    clocks: Mapping[str, ConfigClock]
    start_rps: float


def capacity_of(
    spec: WorkloadSpec,
    fleet: str | None = None,
    options: SimulationOptions | None = None,
    *,
    resolution: float = RESOLUTION,
    simulated: bool = True,
    on_progress: Tell | None = None,
) -> MachineRates:
    """The highest rate of a workload that a fleet carries (None: the machines that the workload owns), in each way.

    ``fleet`` is in the notation of :mod:`melange.planning.fleet_notation`; ways are tried where it names no degree or
    precision: every degree that all machines have GPUs for, the mix of degrees with the most slack, and beside the
    precisions that the workload leaves open the checkpoint's own and fp8, or int8 where no GPU of it computes fp8.
    ``options``: ``requests``, ``replications`` (2), ``seed``, ``policy``, ``process`` (as uneven as the workload says)
    and ``jobs`` are heeded. InputError where the fleet cannot be, InfeasibleError where no way carries anything.
    """
    parts = parse_fleet(fleet) if fleet is not None else _owned(spec)
    left_out: list[str] = []
    ways = list(_ways(spec, parts, left_out))
    if not ways:
        raise InputError(
            f"the machines can run the model in no way: {'; '.join(dict.fromkeys(left_out)) or 'there is none'}",
            fix="name larger machines, as in 1xH100:8, or another precision",
        )
    found = _rates(ways, options, _target(spec.slo.share), resolution, simulated, on_progress)
    return replace(found, left_out=tuple(dict.fromkeys(left_out)))


def capacity_of_plan(
    plan: Plan,
    options: SimulationOptions | None = None,
    *,
    resolution: float = RESOLUTION,
    simulated: bool = True,
    on_progress: Tell | None = None,
) -> MachineRates:
    """The highest rate that a plan's fleet carries as it stands, its replicas and shares kept.

    Options and errors as for :func:`capacity_of`. Other ways to use its machines are asked of its workload.
    """
    if not plan.solved:
        raise InputError("the plan has no fleet", fix="solve a workload that some fleet can serve")
    used = max((plan.utilization[name] for name in plan.replicas), default=0.0)
    rate = plan.workload.rate_rps / used if used > 0 else 0.0
    names = [name for name in plan.replicas if plan.replicas[name]]
    precisions = dict.fromkeys(plan.configs[name].precision for name in names)
    way = WayRate(
        label="planned",
        precision="/".join(precisions),
        is_open=True,
        replicas=dict(plan.replicas),
        program_rps=rate,
    )
    ways = [_Way(rate=way, plan=plan, clocks=plan_clocks(plan, names), start_rps=rate or plan.workload.rate_rps)]
    return _rates(ways, options, _target(plan.slo.share), resolution, simulated, on_progress)


def _owned(spec: WorkloadSpec) -> tuple[FleetPart, ...]:
    """What the workload owns, as a fleet."""
    rows = owned_machines(spec, spec.catalog())
    if not rows:
        raise InputError(
            "the workload owns no machines", fix="name some with --fleet, --own or fleet: {H100: {owned: 8}}"
        )
    return tuple(FleetPart(count=row.count, name=row.machine.key) for row in rows)


def _target(share: float | None) -> float:
    return TARGET if share is None else share


def _ways(spec: WorkloadSpec, parts: Sequence[FleetPart], left_out: list[str]) -> Iterator[_Way]:
    """Every way that differs from those before it; what cannot be is added to ``left_out``."""
    if not spec.slo.thresholds_s:
        raise InputError("the workload's SLO has no threshold to keep", fix="give it a TPOT, TTFT or E2E limit")
    catalog = spec.catalog()
    offers = usable_offers(spec, catalog)[1]
    machines = [machine_of(part, offers, catalog, priced=priced(spec)) for part in parts]
    # The machines are given: another degree must not mean larger ones.
    parts = [replace(part, gpus=machine.gpus) for part, machine in zip(parts, machines, strict=True)]
    gpus = dict.fromkeys(machine.gpu for machine in machines)
    seen: set[tuple[tuple[str, int], ...]] = set()
    for precision in (None, *_others(spec, parts, gpus)):
        for tp in (*DEGREES, None):
            if any((tp or 1) > machine.gpus for machine in machines):
                continue
            asked = [replace(part, tp=part.tp or tp, precision=part.precision or precision) for part in parts]
            try:
                found = asked_fleet(spec, asked)
                plan = found.plan()
            except InputError as error:
                left_out.append(error.problem.removeprefix("fleet: "))
                continue
            replicas = tuple(sorted(plan.replicas.items()))
            if replicas not in seen:
                seen.add(replicas)
                yield _way(spec, found, plan, is_open=precision is None)


def _others(spec: WorkloadSpec, parts: Sequence[FleetPart], gpus: Iterable[str]) -> list[str]:
    """The precisions told beside those that are open: the checkpoint's own and fp8, int8 where no GPU computes fp8."""
    asked = spec.serving.precisions
    if ANY in asked or all(part.precision for part in parts):
        return []
    catalog = spec.catalog()
    known = [catalog.gpu(gpu) for gpu in gpus]
    smaller = next((kind for kind in OTHER_PRECISIONS if any(gpu.is_native(kind) for gpu in known)), None)
    try:
        own: str | None = catalog.model(spec.workload.model or "").precision
    except InputError:
        own = None
    return [kind for kind in (own, smaller) if kind is not None and kind not in (asked or (own,))]


def _way(spec: WorkloadSpec, found: AskedFleet, plan: Plan, *, is_open: bool) -> _Way:
    counts, rate_rps = np.array(found.counts, dtype=np.int64), spec.workload.total_rate_rps
    least = most_slack(found.ground.least, counts)
    ceiling = rate_rps if least is None or least.highest <= 0 else rate_rps / least.highest
    program = rate_rps * _program_scale(found, counts, ceiling / rate_rps)
    configs = [plan.configs[name] for name in plan.replicas]
    degrees: dict[int, int] = {}
    for config, count in zip(configs, plan.replicas.values(), strict=True):
        degrees[config.tp] = degrees.get(config.tp, 0) + count
    label = " + ".join(f"{count} x TP {tp}" for tp, count in sorted(degrees.items(), reverse=True))
    way = WayRate(
        label=label,
        precision="/".join(dict.fromkeys(config.precision for config in configs)),
        is_open=is_open,
        replicas=dict(plan.replicas),
        program_rps=program,
    )
    return _Way(rate=way, plan=plan, clocks=found.ground.clocks, start_rps=program or ceiling / 4)


def _program_scale(found: AskedFleet, counts: IntArray, most: float) -> float:
    """How many times over the machines carry the demand by the program, at the most ``most``; 0 where not at all.

    Exact where every size is in time; where requests may be late by design, as in a plan, to PROGRAM_RESOLUTION.
    """
    problem, case = found.ground.in_time, found.ground.case
    in_time = most_slack(problem, counts)
    kept = 0.0 if in_time is None or in_time.highest <= 0 else 1 / in_time.highest
    late = case.problem.lateness
    if late is None or late.at_most <= 0:
        return kept
    problem = replace(problem, lateness=replace(late, load=late.load / (1 + case.choices.headroom)))

    def carries(scale: float) -> bool:
        arranged = most_slack(problem.scaled(scale), counts)
        return arranged is not None and arranged.carries

    low, high = kept or most / GIVEN_UP, max(most, kept)
    if not kept and not carries(low):
        return 0.0
    while high / low > 1 + PROGRAM_RESOLUTION:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if carries(middle) else (low, middle)
    return low


def _rates(
    ways: Sequence[_Way],
    options: SimulationOptions | None,
    target: float,
    resolution: float,
    simulated: bool,
    on_progress: Tell | None,
) -> MachineRates:
    """The ways with their simulated rates, the highest first."""
    if not 0 < resolution < 1:
        raise InputError(f"resolution is {resolution}", fix="give a share between 0 and 1, for example 0.02")
    plan, options = ways[0].plan, options or SimulationOptions(replications=REPLICATIONS)
    if options.process is not None and options.process.kind == "trace":
        raise InputError("a replayed trace has one rate", fix="draw the arrivals: poisson, gamma:CV or mmpp")
    fastest = max(way.start_rps for way in ways)
    requests = options.requests or int(min(max(LEAST_REQUESTS, LEAST_SPAN_S * fastest), MOST_REQUESTS))
    process = options.process or drawn_process(plan.workload.burstiness_cv)
    options = replace(options, requests=requests, process=process)
    tell = on_progress or (lambda line: None)
    rows = []
    for way in ways:
        rate = _simulated(way, options, target, resolution) if simulated else way.rate
        rows.append(rate)
        tell(f"{rate.label}, {rate.precision}: {rate.rate_rps:.3g} req/s")
    if not any(row.rate_rps > 0 for row in rows):
        raise InfeasibleError(f"at no rate do these machines keep {_promise(plan, target)}")
    scenario = Trials(target=target, options=options, clocks=ways[0].clocks).scenario(plan)
    return MachineRates(
        workload=plan.workload.name,
        model=plan.workload.model,
        machines=dict(plan.instances),
        cost_usd_per_hour=float(plan.cost_usd_per_hour or 0.0),
        slo_text=_promise(plan, target),
        target=target,
        ways=tuple(sorted(rows, key=lambda row: -row.rate_rps)),
        resolution=resolution,
        requests=requests,
        replications=options.replications,
        seed=options.seed,
        arrivals=process.describe(),
        policy=scenario.policy.name,
        warnings=plan.warnings,
    )


def _growth(outcome: RequestOutcomes) -> float:
    """By how much the wait for the first token grows a second, from the first third of the arrivals to the last."""
    third = len(outcome.arrival_s) // 3
    served = np.isfinite(outcome.ttft_s)
    if third < 1 or not served.all():
        return np.inf
    order = np.argsort(outcome.arrival_s, kind="stable")
    first, last = order[:third], order[-third:]
    passed = float(outcome.arrival_s[last].mean() - outcome.arrival_s[first].mean())
    later = float(outcome.ttft_s[last].mean() - outcome.ttft_s[first].mean())
    return later / passed if passed > 0 else np.inf


def _promise(plan: Plan, target: float) -> str:
    """The promise in words, with the target where it states no share."""
    return (plan.slo if plan.slo.share else replace(plan.slo, attainment=target)).describe()


def _simulated(way: _Way, options: SimulationOptions, target: float, resolution: float) -> WayRate:
    """The way with the highest rate that keeps the target, from its start up or down, then by bisection."""
    seen: dict[float, float] = {}

    def keeps(rate_rps: float) -> bool:
        trials = Trials(target=target, options=replace(options, rate_rps=rate_rps), clocks=way.clocks)
        scenario = trials.scenario(way.plan)
        played = replications_of(scenario, 0, options.replications, causes=False)
        seen[rate_rps] = float(np.mean([attainment_of(r.outcome, way.plan.slo) for r in played]))
        return seen[rate_rps] >= target and float(np.mean([_growth(r.outcome) for r in played])) <= GROWS

    kept, missed, rate_rps, step = 0.0, np.inf, way.start_rps, FIRST_STEP
    while not (kept and np.isfinite(missed)):
        if keeps(rate_rps):
            kept, rate_rps = rate_rps, rate_rps * step
        elif rate_rps < way.start_rps / GIVEN_UP:
            return replace(way.rate, simulated_rps=0.0)
        else:
            missed, rate_rps = rate_rps, rate_rps / step
        step *= FIRST_STEP
    while missed / kept > 1 + resolution:
        middle = float(np.sqrt(kept * missed))
        kept, missed = (middle, missed) if keeps(middle) else (kept, middle)
    return replace(way.rate, simulated_rps=kept, attainment=seen[kept])
