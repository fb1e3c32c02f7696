"""The options of every command that solves a workload, and what they make of its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from melange.cli.options import names, numbers, owned, pairs
from melange.cli.slo_options import Limit, share, tpot_definition_option, tpot_limit_option, ttft_limit_option

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.planning.options import SolveOptions
    from melange.planning.spec import WorkloadSpec

_SERVING = ("precisions", "tp", "kv_dtypes", "batched_tokens", "sequences")
_LIMITS = ("maximum", "minimum", "only", "exclude", "max_cost_usd_per_hour", "owned")

STATISTICS = ("mean", "peak", "p95")


def rate_or_statistic(ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:
    """``"8"`` -> 8.0; ``mean``, ``peak`` and ``p95`` as they are."""
    if value is None or value in STATISTICS:
        return value
    try:
        return float(value)
    except ValueError:
        names = ", ".join(STATISTICS)
        raise click.BadParameter(f"{value!r} is neither a number nor one of {names}", ctx, param) from None


def _margin(ctx: click.Context, param: click.Parameter, value: str | None) -> float:
    """``"0.15"`` and ``"15%"`` -> 0.15."""
    text = (value or "0").strip()
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a share such as 0.15 or 15%", ctx, param) from None
    if not 0 <= found < 10:
        hint = f"; did you mean {text}%?" if 10 <= found <= 100 and not text.endswith("%") else ""
        raise click.BadParameter(f"{text} is not a share from 0 to below 10, as 0.15 or 15% are{hint}", ctx, param)
    return found


_PROMISE = (
    tpot_definition_option,
    ttft_limit_option,
    click.option(
        "--attainment",
        callback=share,
        metavar="SHARE",
        help="Share of requests that must keep the SLO, in place of its mean.",
    ),
)
_LIMITING = (
    click.option(
        "--slice-factor", type=click.IntRange(1), help="Cut each bucket into N equal slices, as the paper does."
    ),
    click.option(
        "--max", "maximum", multiple=True, callback=pairs, metavar="NAME=N", help="At most N of a GPU or instance."
    ),
    click.option(
        "--min", "minimum", multiple=True, callback=pairs, metavar="NAME=N", help="At least N of a GPU or instance."
    ),
    click.option(
        "--own",
        "owned",
        multiple=True,
        callback=owned,
        metavar="NAME[:SIZE]=N",
        help="N GPUs of a type, in machines of SIZE (by default 1), or N instances that are there anyway and cost "
        "nothing more, e.g. H100:8=16.",
    ),
    click.option("--only", multiple=True, callback=names, metavar="NAMES", help="Rent only these GPUs or instances."),
    click.option(
        "--exclude", multiple=True, callback=names, metavar="NAMES", help="Never rent these GPUs or instances."
    ),
    click.option("--max-cost-usd-per-hour", type=float, help="Budget per hour."),
    click.option(
        "--late-by-design",
        type=click.FloatRange(0, 1),
        metavar="PART",
        help="Part of the requests which --attainment lets miss that may be planned late, e.g. 0.2; 0: none  "
        "[default: the file's, or 0.5; the rest is left for waiting]",
    ),
    click.option("--headroom", type=float, help="Scale the rate by 1 + this, e.g. 0.1 for 10%."),
    click.option(
        "--margin",
        callback=_margin,
        metavar="SHARE",
        help="Plan for this much more load than the rate tells, 0.15 or 15%; unlike headroom it counts as demand, so "
        "that promises and simulations hold at it.",
    ),
)
_WINDOWED = (
    click.option(
        "--for-every-window/--for-whole-mix",
        "every_window",
        default=None,
        help="Find the fleet that keeps the promise in every window of the workload's time, machines common, shares "
        "free in each; or for its whole mix, whatever the file says.",
    ),
    click.option(
        "--window-share",
        callback=share,
        metavar="SHARE",
        help="The same for this share of the windows, 0.95 or 95%; those of the most load are left out.",
    ),
)
_SERVED = (
    click.option("--price-set", help="Price set, in place of the file's (see 'melange gpus')."),
    click.option("--prices", "price_file", type=click.Path(dir_okay=False), help="A CSV of your own prices."),
    click.option("--provider", "providers", multiple=True, callback=names, help="Rent only from these providers."),
    click.option(
        "--region",
        "regions",
        multiple=True,
        callback=names,
        help="Rent only in these regions; offers of no stated region are left out.",
    ),
    click.option("--spot/--no-spot", default=None, help="Whether spot offers may be used."),
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        callback=names,
        metavar="NAMES",
        help="Precisions of the weights, e.g. fp8: several may be mixed; any: the checkpoint's, fp8 or int8, one for "
        "each GPU type  [default: the checkpoint's own]",
    ),
    click.option(
        "--tp",
        multiple=True,
        callback=numbers,
        metavar="N,N",
        help="Tensor-parallel degrees, e.g. 1,2,4  [default: all that the machines have GPUs for]",
    ),
    click.option(
        "--kv-dtype",
        "kv_dtypes",
        multiple=True,
        callback=names,
        metavar="NAMES",
        help="What the KV cache is kept in: auto, fp8 or both, auto,fp8  [default: auto, the engine's own]",
    ),
    click.option(
        "--batched-tokens",
        multiple=True,
        callback=numbers,
        metavar="N,N",
        help="Most tokens an iteration computes, e.g. 2048  [default: estimated rates try 512 to 8192]",
    ),
    click.option(
        "--sequences",
        multiple=True,
        callback=numbers,
        metavar="N,N",
        help="Most requests an engine runs at once, e.g. 64  [default: estimated rates try what suits the SLO]",
    ),
    click.option(
        "--fill", type=click.Choice(["estimated"]), help="Let the performance model supply what is not measured."
    ),
)
_SOLVING = (
    click.option(
        "--gap",
        type=click.FloatRange(0, 1, max_open=True),
        help="Relative gap to prove [default: 1e-6, large: 1e-3].",
    ),
    click.option(
        "--time-limit", "time_limit_s", type=click.FloatRange(0, min_open=True), help="Seconds a solve may take."
    ),
    click.option(
        "--routing",
        type=click.Choice(["by-size", "input-only"]),
        default="by-size",
        show_default=True,
        help="input-only: shares that a router can follow without knowing output lengths.",
    ),
)


def planning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add everything that changes how a workload is solved, the rate and the TPOT limit left out."""
    return _added(command, (*_PROMISE, *_LIMITING, *_WINDOWED, *_SERVED, *_SOLVING))


def fleet_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what changes how well a fleet that is given serves a workload: the SLO, the offers, what they may run."""
    return _added(command, (tpot_limit_option, *_PROMISE, *_SERVED))


def _added(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def fleet_options_given(given: Mapping[str, Any]) -> list[str]:
    """The flags of :func:`fleet_options` that a command was given."""
    flags = {
        "slo_tpot_ms": "--slo-tpot-ms", "tpot_definition": "--tpot-definition", "slo_ttft_ms": "--slo-ttft-ms",
        "attainment": "--attainment", "price_set": "--price-set", "price_file": "--prices", "providers": "--provider",
        "regions": "--region", "spot": "--spot", "precisions": "--precision", "tp": "--tp", "kv_dtypes": "--kv-dtype",
        "batched_tokens": "--batched-tokens", "sequences": "--sequences", "fill": "--fill",
    }  # fmt: skip
    return [flag for name, flag in flags.items() if given[name] not in (None, ())]


def asked_spec(
    spec: WorkloadSpec,
    given: dict[str, Any],
    *,
    rate_rps: float | None = None,
    tpot_ms: Limit | None = None,
    statistic: str | None = None,
) -> WorkloadSpec:
    """A workload's spec with what a command was given in place of its own values; last of all the load asked for."""
    slo, prices = _slo(given, tpot_ms), _prices(given)
    spec = spec.with_slo(spec.slo.replaced(**slo)) if slo else spec
    spec = spec if rate_rps is None else spec.with_rate(rate_rps)
    spec = spec.with_prices(replace(spec.prices, **prices)) if prices else spec
    spec = spec if given.get("headroom") is None else spec.with_headroom(given["headroom"])
    if given.get("late_by_design") is not None:
        spec = spec.with_late_by_design(given["late_by_design"])
    spec = spec if given["fill"] is None else spec.with_fill(given["fill"])
    spec = spec.with_serving(**{name: given[name] for name in _SERVING if given[name]})
    spec = spec.limited(**{name: given[name] for name in _LIMITS if name in given})
    spec = _windowed(spec, given, statistic)
    if statistic is None and not given.get("margin"):
        return spec
    from melange.planning.load import load_scale_of

    return spec.with_load_scale(load_scale_of(spec, statistic, margin=given["margin"]))


def _windowed(spec: WorkloadSpec, given: dict[str, Any], statistic: str | None) -> WorkloadSpec:
    """The spec for the windows that a command was asked to keep; those of a statistic and all of them are at odds."""
    every, share_asked = given.get("every_window"), given.get("window_share")
    if every is not None and share_asked is not None:
        raise click.UsageError("give --window-share or --for-every-window, not both")
    if every is not None:
        spec = spec.for_windows(1.0 if every else None)
    if share_asked is not None:
        spec = spec.for_windows(share_asked)
    if spec.window_share is not None and statistic in ("peak", "p95"):
        raise click.UsageError(f"--rate {statistic} stands for the windows: leave it out, or plan --for-whole-mix")
    return spec


def release_plan(file: str, given: dict[str, Any], *, rate_rps: float | None, tpot_ms: Limit | None) -> Plan:
    """The plan of a config.json of the original release; what it does not state cannot be asked for."""
    from melange.interop.release import lacks, plan_release
    from melange.planning.limits import Limits

    for asked, what, why in (
        (_slo(given, tpot_ms), "an SLO", "its throughputs hold for whatever SLO they were measured at"),
        (given.get("late_by_design") is not None, "requests late by design", "it states no SLO that any may miss"),
        (_prices(given), "a price set", "its costs are in gpu_info"),
        (given["every_window"] or given["window_share"], "windows", "it is one histogram"),
        (given["fill"], "a model to estimate with", "its throughputs are all there is"),
        (any(given[name] for name in _SERVING), "a serving choice", "it does not say how its GPUs serve"),
        (
            given["owned"],
            "owned machines",
            "its costs are in gpu_info",
        ),
    ):
        if asked:
            raise lacks(file, what, why)
    return plan_release(
        file,
        solve_options(given),
        rate_rps=rate_rps,
        headroom=0.0 if given["headroom"] is None else given["headroom"],
        limits=Limits().narrowed(**{name: given[name] for name in _LIMITS if name != "owned"}),
    )


def solve_options(given: dict[str, Any]) -> SolveOptions:
    """How a command was asked to solve."""
    from melange.planning.options import SolveOptions

    return SolveOptions(
        **{name: given[name] for name in ("slice_factor", "gap", "time_limit_s")},
        tie_outputs=given["routing"] == "input-only",
        explain=given.get("explain", False),
    )


def _slo(given: dict[str, Any], tpot_ms: Limit | None) -> dict[str, Any]:
    limits = {"tpot": tpot_ms, "ttft": given["slo_ttft_ms"]}
    asked: dict[str, Any] = {}
    for name, limit in limits.items():
        asked |= {} if limit is None else limit.of(name)
    return asked | {name: given[name] for name in ("tpot_definition", "attainment") if given[name] is not None}


def _prices(given: dict[str, Any]) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if given["price_set"]:
        asked |= {"price_set": given["price_set"], "file": None}
    if given["price_file"]:
        asked["file"] = given["price_file"]
    asked |= {name: given[name] for name in ("providers", "regions") if given[name]}
    return asked if given["spot"] is None else asked | {"spot": given["spot"]}
