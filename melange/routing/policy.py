"""Policy: which replica a request goes to, chosen by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import NamedTuple

from melange.errors import InputError

# What the compiled functions in melange.routing.dispatch branch on, which know numbers only.
ESTIMATE_PAPER, ESTIMATE_INPUT_ONLY, ESTIMATE_PREDICTOR, ESTIMATE_ORACLE = range(4)
ESTIMATORS = {
    "paper": ESTIMATE_PAPER,
    "input-only": ESTIMATE_INPUT_ONLY,
    "predictor": ESTIMATE_PREDICTOR,
    "oracle": ESTIMATE_ORACLE,
}
ACROSS_FLEET, ACROSS_SHARES, ACROSS_SPILL = range(3)
ACROSS = {"fleet": ACROSS_FLEET, "shares": ACROSS_SHARES, "spill": ACROSS_SPILL}
WEIGHTED_RANDOM, RANDOM, ROUND_ROBIN, LEAST_TOKENS, POWER_OF_TWO, LEAST_PRESSURE = range(6)
WITHIN = {
    "weighted-random": WEIGHTED_RANDOM,
    "random": RANDOM,
    "round-robin": ROUND_ROBIN,
    "least-tokens": LEAST_TOKENS,
    "power-of-two": POWER_OF_TWO,
    "least-pressure": LEAST_PRESSURE,
}


class Codes(NamedTuple):
    """A policy for the compiled functions: the constants above, and the predictor's accuracy."""

    across: int
    within: int
    estimator: int
    accuracy: float


_DISPATCHES = {
    "shares": ("spill", "least-pressure"),
    "random": ("fleet", "random"),
    "round-robin": ("fleet", "round-robin"),
    "least-tokens": ("fleet", "least-tokens"),
    "power-of-two": ("fleet", "power-of-two"),
    "least-pressure": ("fleet", "least-pressure"),
    "shares/random": ("shares", "random"),
    "shares/round-robin": ("shares", "round-robin"),
    "shares/least-tokens": ("shares", "least-tokens"),
    "shares/power-of-two": ("shares", "power-of-two"),
}
POLICY_NAMES = ("paper", *_DISPATCHES)
DEFAULT_POLICY = "shares"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A dispatch rule and an estimate of the output length, which is unknown on arrival.

    ``across`` chooses the config: ``fleet`` leaves it to the replica's choice, ``shares`` keeps the plan's mix
    strictly, ``spill`` follows the mix as priorities and passes over configs under pressure. ``within`` chooses
    among replicas: at random (``weighted-random``: by max rate, as the paper does), in turn, by tokens in flight, or
    by ``least-pressure``, the predicted share of the latency limits. ``estimator``: ``paper`` is the running mean of
    outputs per input bucket, ``input-only`` the plan's mix over outputs, ``predictor`` names the right output bucket
    with probability ``accuracy`` and else another one by its frequency, ``oracle`` knows it.
    """

    name: str
    across: str
    within: str
    estimator: str
    accuracy: float = 1.0

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.across, ACROSS, "config choice"),
            (self.within, WITHIN, "replica choice"),
            (self.estimator, ESTIMATORS, "estimator"),
        ):
            if value not in known:
                raise InputError(f"policy {self.name}: unknown {what} {value!r}", fix=f"use one of {', '.join(known)}")
        if not 0 <= self.accuracy <= 1:
            raise InputError(f"policy {self.name}: accuracy is {self.accuracy}", fix="give a share from 0 to 1")

    def codes(self) -> Codes:
        """The policy for the compiled functions."""
        return Codes(ACROSS[self.across], WITHIN[self.within], ESTIMATORS[self.estimator], float(self.accuracy))


def policy_by_name(name: str, *, predictor_accuracy: float | None = None) -> Policy:
    """``<dispatch>[:<estimator>]``, such as ``shares``, ``power-of-two:oracle`` or ``shares:predictor=0.8``.

    ``paper`` is the Mélange paper's policy (arXiv 2404.14527, appendix A.2). Without an estimator, ``shares`` policies
    use ``input-only``. ``predictor_accuracy`` serves a ``predictor`` that names none; without either InputError.
    """
    dispatch, _, rest = name.partition(":")
    estimator, _, accuracy_text = rest.partition("=")
    if dispatch not in POLICY_NAMES:
        near = difflib.get_close_matches(dispatch, POLICY_NAMES, n=1, cutoff=0.4)
        raise InputError(
            f"unknown policy {dispatch!r}",
            fix=f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(POLICY_NAMES)}",
        )
    across, within = ("fleet", "weighted-random") if dispatch == "paper" else _DISPATCHES[dispatch]
    default = "paper" if dispatch == "paper" else "input-only"
    accuracy = _accuracy(name, estimator or default, accuracy_text, predictor_accuracy)
    return Policy(name=name, across=across, within=within, estimator=estimator or default, accuracy=accuracy)


def _accuracy(name: str, estimator: str, text: str, given: float | None) -> float:
    if estimator != "predictor":
        if text:
            raise InputError(f"policy {name!r}: only a predictor has an accuracy", fix="leave out the part after '='")
        return 1.0
    if not text and given is None:
        raise InputError(
            f"policy {name!r} needs a predictor of output lengths and none was given",
            fix=f"give its accuracy, as in {name}=0.8",
        )
    try:
        return float(text) if text else float(given or 0.0)
    except ValueError as error:
        raise InputError(f"policy {name!r}: accuracy is {text!r}", fix="give a share from 0 to 1") from error
