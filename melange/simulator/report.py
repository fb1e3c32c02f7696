"""SimulationReport: what a planned fleet's users would see, with how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from melange.arrays import FloatArray
from melange.files.shown import html_table, number, share, short_repr
from melange.plan.plan import Plan
from melange.routing.table import RoutingTable
from melange.simulator.metrics import CAUSES, Estimate, KeptPercentile, Latency, RequestOutcomes, attainment_of
from melange.simulator.run import Played

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION = 1
QUANTILES = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Means over replications of whatever one replication has one of."""

    goodput_rps: float
    served_rps: float
    offered_rps: float
    usd_per_million_tokens: float | None
    preemptions_per_request: float
    unserved_share: float
    restarted_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReport:
    """One config: its replicas, the requests it got, and how it held up.

    ``attainment`` is None where it got no requests. ``busy`` is the share of time with an iteration under way, which a
    batching engine keeps near 1 long before it is full; ``running`` the mean requests in a batch while busy,
    ``kv_use`` the mean share of the KV cache in use while busy. ``planned_share`` is the plan's share of all requests,
    ``planned_utilization`` its load / replicas: of what the replicas can carry under the SLO, not of their time.
    """

    replicas: int
    share: float
    planned_share: float
    attainment: float | None
    busy: float
    running: float
    kv_use: float
    planned_utilization: float | None
    ttft: Latency
    tpot: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketReport:
    """One size bucket: its upper edges in tokens, its share of requests, and what they saw."""

    input_tokens_max: int
    output_tokens_max: int
    share: float
    attainment: float
    tpot: Latency
    ttft: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSeries:
    """Requests waiting and running and replicas up, per config, over the first replication; times in seconds."""

    at_s: tuple[float, ...]
    waiting: Mapping[str, tuple[int, ...]]
    running: Mapping[str, tuple[int, ...]]
    up: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """What simulating a plan gave.

    ``attainment`` is the joint share of requests that meet all of the SLO's thresholds or, for percentiles, what is
    attained of the highest (see Slo.attained; with the scope ``bucket``, that of the worst bucket), its interval a 95%
    t interval over independent replications. ``percentiles`` are those that the SLO promises, over all replications;
    configs and buckets have joint shares whatever is promised. ``missed_share`` maps a
    cause (see CAUSES) to its share of all requests. ``mean_kept`` says, for an SLO on means, whether the means keep
    their thresholds. ``tpot_quantiles_s``: TPOT at 0, 1, ..., 100%. ``clocks``: how each config's clock was made.
    """

    slo: Mapping[str, Any]
    slo_text: str
    policy: str
    arrivals: str
    sizes: str
    requests: int
    warmup_requests: int
    replications: int
    seed: int
    attainment: Estimate
    attainment_by_replication: tuple[float, ...]
    mean_kept: bool | None
    cost_usd_per_hour: float
    ttft: Latency
    tpot: Latency
    e2e: Latency
    means: Means
    missed_share: Mapping[str, float]
    configs: Mapping[str, ConfigReport]
    buckets: tuple[BucketReport, ...]
    queue: QueueSeries | None
    tpot_quantiles_s: tuple[float, ...]
    clocks: Mapping[str, Mapping[str, Any]]
    outages: int = 0
    tokens_lost: int = 0
    warnings: tuple[str, ...] = ()
    percentiles: tuple[KeptPercentile, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, times in seconds."""
        return {"schema_version": self.schema_version, **asdict(self)}

    def __repr__(self) -> str:
        return short_repr("SimulationReport", self._headline())

    def _headline(self) -> str:
        low, high = self.attainment.low, self.attainment.high
        interval = "" if low is None or high is None else f" ({share(low, 2)} to {share(high, 2)})"
        kept = f"{share(self.attainment.mean, 2)}{interval} of the requests keep {self.slo_text}"
        if self.percentiles:
            kept = "; ".join(found.describe() for found in self.percentiles)
        return f"{kept}; {self.replications} x {self.requests:,} requests, {self.arrivals}, policy {self.policy}"

    def _repr_html_(self) -> str:
        rows = [
            (name, c.replicas, share(c.share), share(c.attainment), number(c.tpot.p50_s, 4), number(c.tpot.p99_s, 4),
             number(c.ttft.p50_s, 3), number(c.ttft.p99_s, 3), share(c.busy))
            for name, c in self.configs.items()
        ]  # fmt: skip
        columns = ("config", "replicas", "of the requests", "keep the SLO", "TPOT p50, s", "TPOT p99, s")
        notes = (f"warning: {text}" for text in self.warnings)
        return html_table(self._headline(), (*columns, "TTFT p50, s", "TTFT p99, s", "busy"), rows, notes)

    def to_frame(self) -> DataFrame:
        """One row a size bucket that got requests.

        Index: ``input_tokens_max``, ``output_tokens_max`` (upper edges). Columns: ``share`` of all requests and
        ``attainment``, fractions; ``tpot_mean_s``, ``tpot_p50_s``, ``tpot_p90_s``, ``tpot_p95_s``, ``tpot_p99_s`` and
        the same of ``ttft``, NaN where there is nothing to average.
        """
        import pandas as pd

        edges = [(bucket.input_tokens_max, bucket.output_tokens_max) for bucket in self.buckets]
        index = pd.MultiIndex.from_tuples(edges, names=["input_tokens_max", "output_tokens_max"])
        return pd.DataFrame(
            [_frame_row(bucket, "share", "attainment") for bucket in self.buckets], index=index, dtype=float
        )

    def configs_frame(self) -> DataFrame:
        """One row a config.

        Index ``config``. Columns: ``replicas``; ``share``, ``planned_share``, ``attainment``, ``busy``, ``kv_use``
        (fractions) and ``running`` (mean requests in a batch), as in :class:`ConfigReport`; latencies as in
        :meth:`to_frame`.
        """
        import pandas as pd

        names = ("replicas", "share", "planned_share", "attainment", "busy", "running", "kv_use")
        rows = [_frame_row(config, *names) for config in self.configs.values()]
        return pd.DataFrame(rows, index=pd.Index(list(self.configs), name="config")).astype({"attainment": float})


def _frame_row(row: BucketReport | ConfigReport, *names: str) -> dict[str, Any]:
    latencies = {"tpot": asdict(row.tpot), "ttft": asdict(row.ttft)}
    flat = {f"{kind}_{name}": value for kind, values in latencies.items() for name, value in values.items()}
    return {name: getattr(row, name) for name in names} | flat


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replication:
    """What is kept of one replication until all are done; per config: (n_config,) arrays."""

    outcome: RequestOutcomes
    span_s: float
    busy: FloatArray
    running: FloatArray
    kv_use: FloatArray
    tokens_lost: int
    outages: int
    queue: QueueSeries | None


def replication_of(
    played: Played,
    outcome: RequestOutcomes,
    table: RoutingTable,
    names: Sequence[str],
    kv_tokens: FloatArray,
    outages: int,
) -> Replication:
    """Summarise one run's replicas per config; ``kv_tokens``: (n_config,) KV capacity of a replica."""
    replicas = played.replicas
    until_s = np.nanmax(np.append(played.requests.end_s, played.requests.arrival_s[-1]))
    n_config = len(names)

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(table.config_of, weights=values, minlength=n_config), dtype=float)

    count, busy_s = total(np.ones(len(replicas))), total(replicas.busy_s)
    once = np.maximum(busy_s, 1e-12)
    return Replication(
        outcome=outcome,
        span_s=float(outcome.arrival_s[-1] - outcome.arrival_s[0]) if len(outcome.arrival_s) > 1 else 0.0,
        busy=busy_s / (count * max(float(until_s), 1e-12)),
        running=total(replicas.sequence_s) / once,
        kv_use=total(replicas.kv_token_s) / once / kv_tokens,
        tokens_lost=int(replicas.tokens_lost.sum()),
        outages=outages,
        queue=_queue(played, names),
    )


def _queue(played: Played, names: Sequence[str]) -> QueueSeries | None:
    if not len(played.sample_s):
        return None

    def series(column: int) -> dict[str, tuple[int, ...]]:
        return {name: tuple(played.sampled[:, c, column].tolist()) for c, name in enumerate(names)}

    return QueueSeries(at_s=tuple(played.sample_s.tolist()), waiting=series(0), running=series(1), up=series(2))


def mean_kept(plan: Plan, outcome: RequestOutcomes) -> bool | None:
    """Whether the means keep an SLO on means; None for another SLO or one without thresholds."""
    slo = plan.slo
    if slo.statistic != "mean" or not slo.thresholds_s:
        return None
    values = {"tpot": outcome.tpot_s, "ttft": outcome.ttft_s, "e2e": outcome.e2e_s}
    if np.isnan(outcome.e2e_s).any():
        return False
    return all(
        bool(np.nanmean(values[name]) <= limit)
        for name, limit in slo.thresholds_s.items()
        if not np.isnan(values[name]).all()
    )


def joined(outcomes: Sequence[RequestOutcomes]) -> RequestOutcomes:
    """The requests of all replications together; without causes where the replications have none."""
    columns = {name: [getattr(o, name) for o in outcomes] for name in RequestOutcomes.__dataclass_fields__}
    together: dict[str, Any] = {
        name: None if column[0] is None else np.concatenate(column) for name, column in columns.items()
    }
    return RequestOutcomes(**together)


def attainments(plan: Plan, replications: Sequence[Replication]) -> tuple[float, ...]:
    """Each replication's attainment, by the SLO's statistic and scope."""
    return tuple(attainment_of(r.outcome, plan.slo) for r in replications)


def means_of(plan: Plan, replications: Sequence[Replication]) -> Means:
    """Rates and costs, averaged over replications."""
    rows = []
    for r in replications:
        o, span = r.outcome, max(r.span_s, 1e-12)
        served = ~np.isnan(o.e2e_s)
        tokens = float((o.input_tokens + o.output_tokens)[served].sum())
        cost = (plan.cost_usd_per_hour or 0.0) * span / 3600
        rows.append(
            (
                o.met.sum() / span,
                served.sum() / span,
                len(o.met) / span,
                np.nan if tokens == 0 else cost / tokens * 1e6,
                o.preemptions.mean(),
                1.0 - served.mean(),
                (o.restarts > 0).mean(),
            )
        )
    values = [float(v) for v in np.mean(rows, axis=0)]
    return Means(
        goodput_rps=values[0],
        served_rps=values[1],
        offered_rps=values[2],
        usd_per_million_tokens=None if np.isnan(values[3]) else values[3],
        preemptions_per_request=values[4],
        unserved_share=values[5],
        restarted_share=values[6],
    )


def missed_shares(outcome: RequestOutcomes) -> dict[str, float]:
    """Share of all requests that missed for each cause; of an outcome that tells them."""
    assert outcome.cause is not None
    count = np.bincount(outcome.cause[outcome.cause >= 0], minlength=len(CAUSES))
    return {name: float(count[index] / len(outcome.cause)) for index, name in enumerate(CAUSES)}


def config_reports(
    plan: Plan, names: Sequence[str], outcome: RequestOutcomes, replications: Sequence[Replication]
) -> dict[str, ConfigReport]:
    """One entry per config in use."""
    rate = sum(b.rate_rps for b in plan.buckets)
    result = {}
    for c, name in enumerate(names):
        here = outcome.config == c
        result[name] = ConfigReport(
            replicas=plan.replicas[name],
            share=float(here.mean()),
            planned_share=sum(b.rate_rps * b.share_of(name) for b in plan.buckets) / rate,
            attainment=float(outcome.met[here].mean()) if here.any() else None,
            busy=float(np.mean([r.busy[c] for r in replications])),
            running=float(np.mean([r.running[c] for r in replications])),
            kv_use=float(np.mean([r.kv_use[c] for r in replications])),
            planned_utilization=plan.utilization.get(name),
            ttft=Latency.of(outcome.ttft_s[here]),
            tpot=Latency.of(outcome.tpot_s[here]),
        )
    return result


def bucket_reports(plan: Plan, outcome: RequestOutcomes) -> tuple[BucketReport, ...]:
    """One entry per bucket that got requests."""
    inputs, outputs = plan.grid.input_edges_tokens, plan.grid.output_edges_tokens
    rows = []
    for bucket in np.unique(outcome.bucket):
        here = outcome.bucket == bucket
        rows.append(
            BucketReport(
                input_tokens_max=inputs[bucket // len(outputs)],
                output_tokens_max=outputs[bucket % len(outputs)],
                share=float(here.mean()),
                attainment=float(outcome.met[here].mean()),
                tpot=Latency.of(outcome.tpot_s[here]),
                ttft=Latency.of(outcome.ttft_s[here]),
            )
        )
    return tuple(rows)


def tpot_quantiles(outcome: RequestOutcomes) -> tuple[float, ...]:
    """TPOT at 0, 1, ..., 100% of the requests that have one."""
    known = outcome.tpot_s[~np.isnan(outcome.tpot_s)]
    return tuple(np.quantile(known, np.linspace(0, 1, QUANTILES)).tolist()) if len(known) else ()
