"""Routing: one policy, used by the simulator and by a router of live requests."""

from melange.routing.policy import DEFAULT_POLICY, POLICY_NAMES, Policy, policy_by_name
from melange.routing.router import Route, Router
from melange.routing.table import RoutingState, RoutingTable, fleet_configs, new_state, routing_table

__all__ = [
    "DEFAULT_POLICY",
    "POLICY_NAMES",
    "Policy",
    "Route",
    "Router",
    "RoutingState",
    "RoutingTable",
    "fleet_configs",
    "new_state",
    "policy_by_name",
    "routing_table",
]
