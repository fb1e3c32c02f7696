"""The options of ``melange estimate`` that ask for a stated load in place of rates under an SLO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from melange.perfmodel.load import Load

MOST_RPS = 1e9
_OF_AN_SLO = {"slo_tpot_ms": "--slo-tpot-ms", "slo_ttft_ms": "--slo-ttft-ms", "attainment": "--attainment"}


def rates(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[float, ...]:
    """``("0.5,2", "4")`` -> ``(0.5, 2.0, 4.0)``."""
    found = []
    for part in (part.strip() for value in values for part in value.split(",")):
        try:
            rate = float(part)
        except ValueError:
            rate = 0.0
        if not 0 < rate <= MOST_RPS:
            problem = f"{part[:60]!r} is not a rate above 0, up to {MOST_RPS:g}; give requests a second such as 0.5,2"
            raise click.BadParameter(problem, ctx, param)
        found.append(rate)
    return tuple(found)


def check_load_options(given: dict[str, Any]) -> None:
    """Refuse what a load cannot be asked for together with."""
    name = next((f"--{key}" for key, value in _asked(given) if value), None)
    if name is None:
        return
    if given["concurrency"] and given["rates"]:
        raise click.UsageError("--concurrency (a closed loop) and --rate (arrivals) are two loads: give one of them")
    for key, option in _OF_AN_SLO.items():
        if given[key] is not None:
            raise click.UsageError(
                f"{option} asks for the highest rate that keeps it, {name} states the load: give one"
            )
    if given["tpot_definition"] != "decode":
        raise click.UsageError(f"--tpot-definition belongs to an SLO: with {name}, TPOT is the decode mean")
    if "best" in given["sequences"]:
        raise click.UsageError(f"--sequences best is of an SLO, {name} states the load: give a number")
    if given["save"]:
        raise click.UsageError(f"--save writes the ladder of loads of an estimate without {name}: leave one out")


def loads_of(given: dict[str, Any]) -> list[Load]:
    """The loads that were asked for; of prompts alone without one, a lone prompt and the highest rate."""
    from melange.perfmodel.load import Load

    closed = [Load(concurrency=clients) for clients in dict.fromkeys(given["concurrency"])]
    asked = closed + [Load(rate_rps=rate) for rate in dict.fromkeys(given["rates"])]
    return asked or ([Load(concurrency=1), Load()] if given["prefill_only"] else [])


def _asked(given: dict[str, Any]) -> list[tuple[str, Any]]:
    return [("concurrency", given["concurrency"]), ("rate", given["rates"]), ("prefill-only", given["prefill_only"])]
