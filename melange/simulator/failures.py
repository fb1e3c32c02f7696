"""Failures and spot preemptions: replicas that go away and come back, at given times or at a rate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A replica (its number in the fleet) that is down from ``at_s`` for ``down_s`` seconds; None is for good."""

    replica: int
    at_s: float
    down_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRule:
    """What fails: a config's replicas (None: every one), once at ``at_s`` or again and again at a rate.

    At a time, the config's first replica fails. ``rate_per_hour`` is per replica that is up, with exponential times
    between; ``spot_only`` keeps to configs on spot instances. ``down_s`` None is for good.
    """

    config: str | None
    at_s: float | None = None
    rate_per_hour: float | None = None
    down_s: float | None = None
    spot_only: bool = False

    @classmethod
    def parse(cls, text: str) -> FailureRule:
        """``L4@600``, ``L4@600+120``, ``L4~0.5+300``, ``*~0.01+300``, ``spot~0.1+120``.

        ``CONFIG@SECONDS`` fails one replica then; ``CONFIG~RATE`` fails each at a rate per hour; ``+SECONDS`` is how
        long it stays away, for good without. ``*`` is every config, ``spot`` those on spot instances.
        """
        number = r"(\d+(?:\.\d*)?|\.\d+)"
        match = re.fullmatch(rf"(.+)([@~]){number}(?:\+{number})?", text.strip())
        if match is None:
            raise InputError(f"failure {text!r} is not understood", fix="write L4@600+120 or L4~0.5+300")
        name, kind, value, down = match.groups()
        if kind == "~" and float(value) <= 0:
            raise InputError(f"failure {text!r}: the rate is {value}", fix="give a positive rate per hour")
        return cls(
            config=None if name in ("*", "spot") else name,
            at_s=float(value) if kind == "@" else None,
            rate_per_hour=float(value) if kind == "~" else None,
            down_s=None if down is None else float(down),
            spot_only=name == "spot",
        )


def outages(
    rules: Sequence[FailureRule],
    config_of: Sequence[str],
    spot: Sequence[bool],
    until_s: float,
    rng: np.random.Generator,
) -> tuple[Outage, ...]:
    """The outages that these rules bring to a fleet, in order of time.

    ``config_of`` and ``spot`` tell each replica's config and whether it is on a spot instance. InputError for a config
    that the fleet does not have.
    """
    found: list[Outage] = []
    for rule in rules:
        members = [
            r
            for r, name in enumerate(config_of)
            if (rule.config is None or name == rule.config) and (spot[r] or not rule.spot_only)
        ]
        if not members:
            wanted = "spot instance" if rule.spot_only else f"replica of {rule.config!r}"
            raise InputError(f"the fleet has no {wanted} to fail", fix=f"it has {', '.join(dict.fromkeys(config_of))}")
        if rule.at_s is not None:
            taken = {o.replica for o in found if o.at_s == rule.at_s}
            free = [r for r in members if r not in taken]
            found += [Outage(replica=free[0], at_s=rule.at_s, down_s=rule.down_s)] if free else []
        else:
            for r in members:
                found += _repeated(r, rule, until_s, rng)
    return tuple(sorted(found, key=lambda o: (o.at_s, o.replica)))


def _repeated(replica: int, rule: FailureRule, until_s: float, rng: np.random.Generator) -> list[Outage]:
    mean_s = 3600.0 / (rule.rate_per_hour or 1.0)
    result: list[Outage] = []
    at_s = rng.exponential(mean_s)
    while at_s < until_s:
        result.append(Outage(replica=replica, at_s=float(at_s), down_s=rule.down_s))
        if rule.down_s is None:
            break
        at_s += rule.down_s + rng.exponential(mean_s)
    return result
