"""Options of an SLO, shared by the commands that ask for one, and how they are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from melange.slo import Slo


def share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``"0.99"`` and ``"99%"`` -> 0.99; a share lies above 0 and below 1."""
    if value is None:
        return None
    text = value.strip()
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a share such as 0.99 or 99%", ctx, param) from None
    if not 0 < found < 1:
        hint = f"; did you mean {text}%?" if 50 <= found < 100 and not text.endswith("%") else ""
        raise click.BadParameter(f"{text} is not between 0 and 1, as 0.99 or 99% are{hint}", ctx, param)
    return found


class Limit(NamedTuple):
    """A latency limit as it was asked for: milliseconds, and the quantile that must keep it by itself, if one was."""

    ms: float
    quantile: float | None = None

    def of(self, name: str) -> dict[str, float]:
        """As fields of an SLO's latency ``name``, such as ``ttft``."""
        asked = {f"{name}_s": self.ms / 1000}
        return asked if self.quantile is None else asked | {f"{name}_quantile": self.quantile}


class LimitType(click.ParamType[Limit]):
    """``500`` (milliseconds), or ``p95=500``: what the 95th percentile must keep, whatever the other latencies do."""

    name = "MS|pN=MS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Limit:
        """Read a limit; click.BadParameter for anything else."""
        from melange.slo import percentile_of

        if isinstance(value, Limit):
            return value
        name, equals, number = str(value).strip().rpartition("=")
        quantile = percentile_of(name.strip()) if equals else None
        try:
            ms = float(number)
        except ValueError:
            ms = math.nan
        if math.isnan(ms) or (equals and quantile is None):
            self.fail(
                f"{value!r} is neither a limit in ms, such as 500, nor a percentile's, such as p95=500", param, ctx
            )
        return Limit(ms, quantile)


LIMIT = LimitType()
EACH = "p95=50 limits that percentile by itself"
tpot_limit_option = click.option("--slo-tpot-ms", type=LIMIT, help=f"TPOT limit in ms, in place of the file's; {EACH}.")
ttft_limit_option = click.option("--slo-ttft-ms", type=LIMIT, help=f"TTFT limit in ms, in place of the file's; {EACH}.")
tpot_definition_option = click.option(
    "--tpot-definition",
    type=click.Choice(["decode", "e2e_per_token"]),
    help="Which TPOT: (latency - TTFT) / (tokens - 1), or latency / tokens.",
)
_SLO = (
    click.option("--slo-tpot-ms", type=LIMIT, help=f"TPOT limit in ms; needs --tpot-definition. {EACH}."),
    tpot_definition_option,
    click.option("--slo-ttft-ms", type=LIMIT, help=f"TTFT limit in ms; {EACH}."),
    click.option("--slo-e2e-ms", type=LIMIT, help=f"Limit of the whole latency in ms; {EACH}."),
    click.option(
        "--attainment",
        callback=share,
        metavar="SHARE",
        help="Share of requests that must keep the SLO [default: its mean must].",
    ),
)


def slo_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of an SLO."""
    for option in reversed(_SLO):
        command = option(command)
    return command


def slo_of(given: dict[str, Any]) -> Slo:
    """The SLO that the options ask for."""
    from melange.slo import METRICS, Slo

    if (given["slo_tpot_ms"] is None) != (given["tpot_definition"] is None):
        raise click.UsageError("--slo-tpot-ms and --tpot-definition go together: there are two TPOTs in use")
    asked: dict[str, Any] = {}
    for name in METRICS:
        if given[f"slo_{name}_ms"] is not None:
            asked |= given[f"slo_{name}_ms"].of(name)
    if given["attainment"] is not None and not asked:
        raise click.UsageError("--attainment needs a limit to attain: --slo-tpot-ms, --slo-ttft-ms or --slo-e2e-ms")
    asked |= {name: given[name] for name in ("tpot_definition", "attainment") if given[name] is not None}
    return Slo(**asked)
