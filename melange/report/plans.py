"""A plan as a table, JSON, YAML or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace

import yaml
from rich.console import Group, RenderableType
from rich.markup import escape

from melange.plan.bucket import PlanBucket
from melange.plan.costs import describe_instances
from melange.plan.file import plan_record
from melange.plan.odds import Uncertainty
from melange.plan.plan import Plan
from melange.plan.promise import AttainReport
from melange.report.attain import attain_parts, confirmed, promise_warning
from melange.report.tables import percent, rendered, table, usd
from melange.solver.explanation import Explanation
from melange.solver.problem import Status


def render_plan(plan: Plan, output: str = "table", *, colour: bool | None = None, reasons: bool = True) -> str:
    """The plan as ``table``, ``json``, ``yaml`` or ``csv`` (one row per config in use).

    A table of a plan without a fleet says why there is none, unless ``reasons`` is False.
    """
    if output == "json":
        return json.dumps(plan_record(plan), indent=2, ensure_ascii=False, allow_nan=False)
    if output == "yaml":
        return yaml.safe_dump(plan_record(plan), sort_keys=False, allow_unicode=True, width=120).rstrip()
    if output == "csv":
        return _csv(plan)
    return rendered(*_parts(plan if reasons else replace(plan, reasons=())), colour=colour)


def _csv(plan: Plan) -> str:
    columns = ("config", "gpu", "instance", "provider", "replicas", "instances", "price_usd_per_hour", "utilization")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for name, count in plan.replicas.items():
        c = plan.configs[name]
        machines = plan.instances.get(c.instance_key, 0)
        writer.writerow(
            [name, c.gpu, c.instance, c.provider or "", count, machines, c.price_usd_per_hour, plan.utilization[name]]
        )
    return out.getvalue().rstrip("\n")


def _parts(plan: Plan) -> list[RenderableType]:
    first = promise_warning(plan.attain)
    parts: list[RenderableType] = [] if first is None else [f"[bold]warning: {escape(first)}[/bold]", ""]
    parts += [_headline(plan), ""]
    if plan.solved:
        parts += [_fleet_table(plan), "", _cost_lines(plan), "", _baseline_table(plan), ""]
        parts += [*_savings_lines(plan), ""]
        parts += [_share_table(plan), ""]
    else:
        parts += [f"  - {escape(reason)}" for reason in plan.reasons]
    if plan.limits:
        parts += [_limit_table(plan), ""]
    if plan.explanation is not None:
        parts += [*_explanation(plan.explanation), ""]
    if plan.attain is not None:
        parts += [*attain_parts(plan.attain), ""]
    if plan.nanobatching is not None:
        parts += [escape(plan.nanobatching.summary), ""]
    if plan.uncertainty is not None:
        parts += [*_uncertainty(plan.uncertainty), ""]
    parts += [escape(line) for line in _scope(plan)]
    parts += [f"warning: {escape(warning)}" for warning in plan.warnings if warning != first]
    if plan.dropped_offers:
        parts.append(f"{len(plan.dropped_offers)} dearer offers of the same GPU and size left out (listed by -o json)")
    return parts


def _headline(plan: Plan) -> str:
    w = plan.workload
    headroom = f", headroom {percent(plan.headroom, 0)}" if plan.headroom else ""
    head = f"[bold]{escape(w.name)}[/bold]: {w.rate_rps:g} req/s"
    head += f" of {escape(w.model)}" if w.model else ""
    head += f", {escape(plan.slo.describe())}{headroom}\n"
    if w.load_scale is not None:
        head += f"planned for {w.load_scale.describe(w.rate_rps)}\n"
    if plan.windows is not None:
        head += f"{escape(plan.windows.describe())}\n"
    if plan.status == Status.INFEASIBLE:
        return head + "[bold]no fleet can serve it" + (":" if plan.reasons else "") + "[/bold]"
    if not plan.solved:
        return head + "[bold]time ran out before any fleet was found[/bold]"
    fleet = escape(describe_instances(plan.instances))
    among = f"\ncheapest among {escape(plan.considered.describe())}" if plan.considered else ""
    if plan.attain is not None:
        return head + f"[bold]{fleet} at {usd(plan.cost_usd_per_hour)}/h[/bold] ({_promise(plan.attain)}){among}"
    return head + f"[bold]{fleet} at {usd(plan.cost_usd_per_hour)}/h[/bold] ({_proof(plan)}){among}"


def _proof(plan: Plan) -> str:
    """What is proven of the cost, and by what: shares of the requests are promised by simulation, not by mean loads."""
    by = " by mean loads; --attain asks the simulator" if plan.slo.share is not None else ""
    gap = f"at most {percent(plan.gap, 2)} above the bound {usd(plan.bound_usd_per_hour)}"
    if plan.status != Status.OPTIMAL:
        return f"not proven cheapest, {gap if plan.gap else 'gap 0'}{by}"
    return f"proven {gap}{by}" if plan.gap else f"proven cheapest{by or ', gap 0'}"


def _scope(plan: Plan) -> list[str]:
    """What was not tried, and what another precision would cost."""
    lines = []
    if plan.considered is not None and plan.considered.left_out:
        lines.append(f"not considered: {plan.considered.describe_left_out()}")
    if plan.advice is not None:
        lines.append(plan.advice.describe())
    return lines


def _promise(report: AttainReport) -> str:
    kept = confirmed(report).removesuffix(" jointly")
    ruled = "every cheaper fleet ruled out" if report.complete else "cheaper fleets may keep it too"
    return f"{kept}, {ruled}"


def _fleet_table(plan: Plan) -> Group:
    rows = []
    for name, count in plan.replicas.items():
        c = plan.configs[name]
        machines = plan.instances.get(c.instance_key, 0)
        provider = " ".join(part for part in (c.provider, c.region, "spot" if c.spot else None) if part)
        rows.append(
            (
                name, c.instance, provider, str(machines), str(count), usd(c.price_usd_per_hour, 3),
                percent(plan.utilization[name]), "/".join(c.sources), c.price_read_on or "-",
            )
        )  # fmt: skip
    columns = ("config", "instance", "rented from", "inst.", "repl.", "$/h each", "utilized", "rates", "price of")
    return table("Fleet", columns, rows, left=3)


def _cost_lines(plan: Plan) -> str:
    costs = plan.costs
    assert costs is not None
    lines = [f"{usd(costs.usd_per_hour)} per hour, {usd(costs.usd_per_month)} per month of 730 h"]
    if costs.usd_per_million_tokens is not None:
        lines.append(
            f"{usd(costs.usd_per_million_tokens, 3)} per million tokens (the whole cost over input and output tokens; "
            f"over input tokens alone {usd(costs.usd_per_million_input_tokens, 3)}, "
            f"over output tokens alone {usd(costs.usd_per_million_output_tokens, 3)})"
        )
    lines += [escape(text) for text in _owned_lines(plan)]
    if plan.windows is not None:
        lines.append(plan.windows.describe_use(plan.cost_usd_per_hour))
    if plan.continuous_cost_usd_per_hour is not None:
        lines.append(
            f"with slices of 1/{plan.slice_factor}; with continuous shares {usd(plan.continuous_cost_usd_per_hour)}/h"
        )
    return "\n".join(lines)


def _owned_lines(plan: Plan) -> list[str]:
    """How many of the owned machines the fleet takes."""
    owned = dict.fromkeys(config.instance_key for config in plan.configs.values() if config.owned)
    there = {limit.name: f" of {limit.value:g}" for limit in plan.limits if limit.kind == "max"}
    used = [f"{plan.instances.get(key, 0)}{there.get(key, '')} {key}" for key in owned]
    return [f"owned, at no further cost: {', '.join(used)}"] if used else []


def _baseline_table(plan: Plan) -> Group:
    rows = []
    ordered = sorted(
        plan.baselines.items(), key=lambda item: (item[1].cost_usd_per_hour is None, item[1].cost_usd_per_hour or 0)
    )
    for name, baseline in ordered:
        if baseline.cost_usd_per_hour is None:
            rows.append((f"{name} only", f"cannot serve: {baseline.reason}", "-", "-"))
            continue
        fleet = describe_instances(baseline.instances or {})
        best = " (best)" if name == plan.best_single_type else ""
        rows.append((f"{name} only{best}", fleet, usd(baseline.cost_usd_per_hour), percent(baseline.savings)))
    return table("Against one type alone", ("fleet", "instances", "$/h", "savings"), rows, left=2)


def _savings_lines(plan: Plan) -> list[str]:
    if plan.best_single_type is None:
        return ["no single type can serve this workload: only a mix does"]
    saved = plan.savings or 0.0
    best = plan.baselines[plan.best_single_type]
    if saved < 0.0005:
        return [f"Renting {plan.best_single_type} alone is as cheap: mixing does not pay here."]
    return [
        f"[bold]saves {percent(saved)} against the best single type[/bold] "
        f"({escape(plan.best_single_type)} at {usd(best.cost_usd_per_hour)}/h)"
    ]


def _share_table(plan: Plan) -> Group:
    """Input sizes down, output sizes across; a letter per config, with its percentage where a bucket is split."""
    letters = {name: _letter(n) for n, name in enumerate(plan.replicas)}
    legend = ", ".join(f"{letter} = {escape(name)}" for name, letter in letters.items())
    title = f"Who serves which size, tokens up to (input down, output across): {legend}"
    mixed = len({source for bucket in plan.buckets for source in bucket.sources.values()}) > 1
    if any(bucket.input_tokens_max is None for bucket in plan.buckets):
        rows = [(str(n), f"{b.rate_rps:.4g}", _shares(b, letters, mixed)) for n, b in enumerate(plan.buckets)]
        return table(title, ("bucket", "req/s", "served by"), rows)
    cells = {(b.input_tokens_max, b.output_tokens_max): _shares(b, letters, mixed) for b in plan.buckets}
    if any("~" in cell for cell in cells.values()):
        title += "; ~ = rate filled in by the performance model"
    inputs = sorted({b.input_tokens_max or 0 for b in plan.buckets})
    outputs = sorted({b.output_tokens_max or 0 for b in plan.buckets})
    rows2 = [(str(i), *(cells.get((i, o), "") for o in outputs)) for i in inputs]
    return table(title, ("", *(str(o) for o in outputs)), rows2)


def _letter(n: int) -> str:
    return chr(ord("a") + n) if n < 26 else f"c{n}"


def _shares(bucket: PlanBucket, letters: Mapping[str, str], mixed: bool) -> str:
    """Letters of the configs that serve a bucket; where a plan ``mixed`` sources, ~ marks estimates."""
    served = [(name, share, "") for name, share in bucket.shares.items()]
    served += [(name, share, " late") for name, share in bucket.late_shares.items()]
    used = [(name, share, late) for name, share, late in served if share > 0.0005 and name in letters]
    marks = {
        name: letters[name] + ("~" if mixed and bucket.sources.get(name) == "estimated" else "") for name in letters
    }
    if len(used) == 1:
        name, _, late = used[0]
        return marks[name] + late
    return " ".join(f"{marks[name]}{100 * share:.0f}%{late}" for name, share, late in used)


def _limit_table(plan: Plan) -> Group:
    sign = {"max": "<=", "min": ">=", "max_cost": "<="}
    rows = [
        (f"{limit.name} {sign[limit.kind]} {limit.value:g}", f"{limit.used:g}", "binds" if limit.binding else "")
        for limit in plan.limits
    ]
    return table("Limits", ("limit", "used", ""), rows)


def _explanation(explanation: Explanation) -> list[RenderableType]:
    capped = [
        (
            f"{row.name} <= {row.maximum}",
            str(row.used),
            _change(row.one_more_usd_per_hour, row.cost_usd_per_hour),
            _change(row.one_fewer_usd_per_hour, row.cost_usd_per_hour),
        )
        for row in explanation.capped
    ]
    entries = [
        (
            row.instance,
            usd(row.price_usd_per_hour, 3),
            "never: it cannot help" if row.break_even_usd_per_hour is None else usd(row.break_even_usd_per_hour, 3),
        )
        for row in explanation.break_even
    ]
    rivals = [
        (
            describe_instances(row.instances),
            usd(row.cost_usd_per_hour),
            _more(row.above_best),
        )
        for row in explanation.next_best
    ]
    parts: list[RenderableType] = []
    if capped:
        parts += [table("What a cap is worth (re-solved)", ("cap", "used", "one more", "one fewer"), capped), ""]
    if entries:
        parts += [table("When an unused type enters", ("type", "price", "enters below"), entries), ""]
    if rivals:
        parts.append(table("The next-best fleets", ("fleet", "$/h", "dearer by"), rivals))
    return parts


def _more(share: float | None) -> str:
    return "-" if share is None else f"+{percent(share)}"


def _change(cost: float | None, now: float) -> str:
    if cost is None:
        return "no fleet"
    return (
        "no change"
        if abs(cost - now) < 0.005
        else f"{usd(cost)}/h ({'+' if cost > now else '-'}{usd(abs(cost - now))})"
    )


def _uncertainty(odds: Uncertainty) -> list[RenderableType]:
    stuck = any(fleet.share_stuck for fleet in odds.fleets)
    rows = [
        (
            describe_instances(fleet.instances),
            usd(fleet.cost_usd_per_hour),
            percent(fleet.share_optimal, 0),
            percent(fleet.share_sufficient, 0),
            *([percent(fleet.share_stuck, 0)] if stuck else []),
            f"{usd(fleet.p5_cost_usd_per_hour)} - {usd(fleet.p95_cost_usd_per_hour)}",
            usd(fleet.mean_regret_usd_per_hour),
            usd(fleet.p95_regret_usd_per_hour),
        )
        for fleet in odds.fleets
    ]
    columns = (
        "fleet", "$/h", "cheapest in", "enough in", *(["stuck in"] if stuck else []),
        "$/h with what it must add", "mean regret", "95% below",
    )  # fmt: skip
    low, high = usd(odds.optimal_cost_p5_usd_per_hour), usd(odds.optimal_cost_p95_usd_per_hour)
    return [
        table("Under uncertain rates and demand, least regret first", columns, rows),
        f"the cheapest fleet costs {low} to {high} per hour in 90% of {odds.draws} draws (seed {odds.seed}); "
        f"fleets judged on as many fresh draws; demand {odds.demand}",
        "regret: dearer than the draw's cheapest fleet. Adding costs only the price of what is added: a small fleet "
        "has little regret where adding is quick, and breaks the promise until then ('enough in': nothing to add).",
        *_beyond_limits(odds, stuck),
    ]


def _beyond_limits(odds: Uncertainty, stuck: bool) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if odds.share_unservable:
        lines.append(
            f"in {percent(odds.share_unservable)} of the draws no fleet within the limits carries the load: raise "
            "the caps or the budget; the figures above leave these draws out"
        )
    if stuck:
        lines.append("stuck in: draws that another fleet carries within the limits, but not this one whatever it adds")
    return lines
