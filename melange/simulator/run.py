"""One run of the compiled simulation over given requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.perfmodel.clock import StepClock
from melange.routing.policy import Policy, policy_by_name
from melange.routing.table import RoutingTable, new_state
from melange.simulator.arrivals import Arrivals
from melange.simulator.failures import Outage
from melange.simulator.kernel import Run, play
from melange.simulator.state import Records, new_machines, new_requests


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """What a run left behind.

    ``requests``: (n,) and ``replicas``: (n_replica,) records, fields as listed in melange.simulator.state.
    ``sampled``: (n_sample, n_config, 3) waiting and running requests and replicas up at ``sample_s``: (n_sample,).
    """

    requests: Records
    replicas: Records
    sample_s: FloatArray
    sampled: IntArray


def play_fleet(
    table: RoutingTable,
    clocks: Sequence[StepClock],
    policy: Policy,
    arrivals: Arrivals,
    *,
    seed: int = 0,
    outages: Sequence[Outage] = (),
    samples: int = 0,
) -> Played:
    """Play requests over the table's replicas, ``clocks`` in the order of its configs."""
    run = new_run(table, clocks, arrivals, seed=seed, outages=outages, samples=samples)
    play(run, policy.codes())
    machines = run.machines
    _add_front(machines.requests, table.config_of, np.array([clock.front_s for clock in clocks]))
    return Played(requests=machines.requests, replicas=machines.replicas, sample_s=run.sample_s, sampled=run.sampled)


def _add_front(requests: Records, config_of: IntArray, front_s: FloatArray) -> None:
    """Add what requests pass before and behind the engine to the times of their first and last tokens."""
    sent = requests.replica >= 0
    added = np.where(sent, front_s[config_of[np.where(sent, requests.replica, 0)]], 0.0)
    requests.first_s += added
    requests.end_s += added


def new_run(
    table: RoutingTable,
    clocks: Sequence[StepClock],
    arrivals: Arrivals,
    *,
    seed: int = 0,
    outages: Sequence[Outage] = (),
    samples: int = 0,
) -> Run:
    """Everything set up, nothing played yet."""
    requests = new_requests(arrivals.arrival_s, arrivals.input_tokens, arrivals.output_tokens, arrivals.cached_tokens)
    machines = new_machines(clocks, table.config_of, requests)
    events = sorted(
        [(o.at_s, 1, o.replica, 0) for o in outages]
        + [(o.at_s + o.down_s, 0, o.replica, 1) for o in outages if o.down_s is not None]
    )
    span_s = float(arrivals.arrival_s[-1])
    sample_s = np.linspace(0.0, span_s, samples + 1)[1:] if samples else np.zeros(0)
    return Run(
        machines=machines,
        table=table,
        routing=new_state(table),
        draws=np.random.default_rng([seed, 7]).random((len(requests), 4)),
        parked=np.full(2, -1, dtype=np.int64),
        event_s=np.array([event[0] for event in events], dtype=float),
        event_replica=np.array([event[2] for event in events], dtype=np.int64),
        event_up=np.array([event[3] for event in events], dtype=np.int64),
        sample_s=sample_s,
        sampled=np.zeros((len(sample_s), len(clocks), 3), dtype=np.int64),
    )


def single_run(clock: StepClock, arrivals: Arrivals) -> Run:
    """One replica and its requests, without any routing, nothing played yet."""
    return new_run(_single_table(), [clock], arrivals)


def play_replica(clock: StepClock, arrivals: Arrivals) -> Played:
    """Play requests on one replica, without any routing."""
    return play_fleet(_single_table(), [clock], policy_by_name("round-robin"), arrivals)


def _single_table() -> RoutingTable:
    """One config, one replica, one size bucket, no limits."""
    edge = np.array([np.iinfo(np.int64).max])
    return RoutingTable(
        input_edges=edge,
        output_edges=edge,
        shares=np.ones((2, 1)),
        max_rate_rps=np.ones((2, 1)),
        output_tokens=np.ones(2),
        output_mix=np.ones((1, 1)),
        config_of=np.zeros(1, dtype=np.int64),
        clock=np.ones((1, 8)),
        limit_s=np.array([np.inf, np.inf, np.inf, 0.0]),
        spill_pressure=1.0,
    )
