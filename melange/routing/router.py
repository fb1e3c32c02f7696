"""Router: the same decisions for live traffic, one request at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from melange.errors import InputError
from melange.perfmodel.clock import StepClock
from melange.plan.plan import Plan
from melange.routing import dispatch
from melange.routing.policy import ESTIMATE_ORACLE, Policy
from melange.routing.table import fleet_configs, new_state, routing_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a request goes: a replica's number in the fleet, its config, and the row that was estimated for it."""

    replica: int
    config: str
    row: int
    input_tokens: int


class Router:
    """Routes requests over a plan's replicas, numbered in the plan's order of configs.

    The caller reports first tokens, ends and the health of replicas; ``seed`` feeds random choices.
    """

    def __init__(self, plan: Plan, clocks: Mapping[str, StepClock], policy: Policy, *, seed: int = 0) -> None:
        self.policy = policy
        self.configs = fleet_configs(plan)
        self._table = routing_table(plan, clocks)
        self._state = new_state(self._table)
        self._draw = np.random.default_rng(seed)

    @property
    def replicas(self) -> tuple[str, ...]:
        """The config of each replica."""
        return tuple(self.configs[config] for config in self._table.config_of)

    def route(self, input_tokens: int, predicted_output_tokens: int | None = None) -> Route | None:
        """Choose a replica and count the request there; None where none that may serve it is up.

        Policies with a predictor or oracle need ``predicted_output_tokens``; InputError without.
        """
        codes = self.policy.codes()
        if self.policy.estimator in ("predictor", "oracle"):
            if predicted_output_tokens is None:
                raise InputError(f"policy {self.policy.name} needs a predicted output length", fix="give it to route()")
            codes = codes._replace(estimator=ESTIMATE_ORACLE, accuracy=1.0)
        draws = self._draw.random(4)
        output = predicted_output_tokens or 1
        row = dispatch.estimate_row(self._table, self._state, codes, input_tokens, output, draws)
        replica = dispatch.choose(self._table, self._state, codes, row, input_tokens, draws)
        if replica == dispatch.NOWHERE:
            return None
        dispatch.note_sent(self._table, self._state, replica, row, input_tokens)
        config = self.configs[self._table.config_of[replica]]
        return Route(replica=int(replica), config=config, row=int(row), input_tokens=input_tokens)

    def first_token(self, route: Route) -> None:
        """Report a request's first token."""
        dispatch.note_first_token(self._state, route.replica, route.input_tokens)

    def finished(self, route: Route, output_tokens: int) -> None:
        """Report a request's end and how many tokens it gave."""
        dispatch.note_finished(self._table, self._state, route.replica, route.row, route.input_tokens, output_tokens)

    def down(self, replica: int) -> None:
        """Report that a replica failed: its requests are to be routed again."""
        dispatch.note_down(self._state, replica)

    def up(self, replica: int) -> None:
        """Report that a replica serves again."""
        self._state.alive[replica] = True
