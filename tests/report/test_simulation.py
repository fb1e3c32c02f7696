"""Simulations, policy comparisons, additivity and length prices as tables or JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from melange.analysis.additivity import Additivity, Mix
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.report.simulation import render_additivity, render_comparison, render_length_price, render_simulation
from melange.simulator.lengths import LengthPrice
from melange.simulator.metrics import Estimate, KeptPercentile, Latency
from melange.simulator.report import SimulationReport
from melange.simulator.simulate import SimulationOptions, simulate


@pytest.fixture(scope="module")
def report() -> SimulationReport:
    """A real report with figures of the test's own where they are looked at."""
    plan = plan_fleet(load_workload("arena-120ms").with_rate(4))
    found = simulate(plan, options=SimulationOptions(requests=400, replications=2))
    return replace(
        found,
        attainment=Estimate(mean=0.98765, low=0.97, high=1.0),
        tpot=Latency(mean_s=0.0404, p50_s=0.005, p90_s=0.05, p95_s=0.06, p99_s=1.5),
        means=replace(found.means, goodput_rps=3.9, offered_rps=4.0, preemptions_per_request=0, unserved_share=0),
        missed_share=dict.fromkeys(found.missed_share, 0.0),
        warnings=("a [warning]",),
        mean_kept=None,
        outages=0,
    )


def said(report: SimulationReport) -> str:
    return " ".join(render_simulation(report, colour=False).split())


def test_a_report_as_a_table(report):
    text = said(report)
    fleet = " + ".join(f"{config.replicas} x {name}" for name, config in report.configs.items())
    assert text.startswith(f"{fleet} at ${report.cost_usd_per_hour:.2f}/h: {report.slo_text}")
    assert "2 x 400 requests" in text
    assert "98.77% of the requests meet the limits jointly (95% interval 97.00 .. 100.00%)" in text
    assert "40 ms 5.00 ms 50 ms 60 ms 1,500 ms" in text
    assert "goodput 3.90 of 4.00 req/s" in text
    assert "warning: a [warning]" in text
    for absent in ("preemptions", "outages", "never served", "Requests that missed", "the means"):
        assert absent not in text


def test_what_went_wrong_is_told(report):
    cause = next(iter(report.missed_share))
    means = replace(report.means, preemptions_per_request=0.25, unserved_share=0.01, restarted_share=0.02)
    text = said(
        replace(
            report,
            missed_share={**report.missed_share, cause: 0.0321},
            means=means,
            outages=2,
            tokens_lost=12345,
            mean_kept=False,
            attainment=Estimate(mean=0.9, low=None, high=None),
        )
    )
    assert f"{cause} 3.21%" in text
    assert "0.25 preemptions a request" in text
    assert "2 outages restarted 2.00% of the requests and lost 12,345 tokens" in text
    assert "1.00% never served" in text
    assert "the means do not keep the SLO" in text
    assert "(95% interval none)" in text
    assert "the means keep the SLO" in said(replace(report, mean_kept=True))


def test_percentiles_stand_beside_their_limits(report):
    ttft = KeptPercentile(latency="ttft", quantile=0.95, limit_s=0.5, measured_s=0.412, within=0.97, kept=True)
    tpot = KeptPercentile(latency="tpot", quantile=0.95, limit_s=0.05, measured_s=0.06, within=0.91, kept=False)
    text = said(replace(report, percentiles=(tpot, ttft)))
    assert "at least 98.77% of the requests within each limit (95% interval 97.00 .. 100.00%)" in text
    assert "p95 TTFT 412 ms, limit 500 ms: kept" in text
    assert "p95 TPOT 60 ms, limit 50 ms: not kept (91.00% within it)" in text
    assert "jointly" not in text
    assert "scaled" not in text
    other = said(replace(report, percentiles=(tpot, replace(ttft, quantile=0.99))))
    assert "within each limit, misses scaled to the highest percentile" in other


def test_the_worst_buckets_come_first(report):
    lines = render_simulation(report, colour=False).splitlines()
    start = next(n for n, line in enumerate(lines) if "Worst size buckets" in line)
    worst = min(report.buckets, key=lambda bucket: (bucket.attainment, -bucket.share))
    names = [line.split()[0] for line in lines[start:] if line.split() and "x" in line.split()[0]]
    assert names[0] == f"{worst.input_tokens_max}x{worst.output_tokens_max}"
    assert len(names) == 5


def test_policies_side_by_side(report):
    other = replace(report, attainment=Estimate(mean=0.5, low=0.4, high=0.6))
    lines = render_comparison({"shares": report, "paper": other}, colour=False).splitlines()
    rows = {line.split()[0]: " ".join(line.split()) for line in lines if line.split()}
    assert rows["shares"].startswith("shares 98.77% 97.00 .. 100.00%")
    assert rows["paper"].startswith("paper 50.00% 40.00 .. 60.00%")
    plain = json.loads(render_comparison({"paper": other}, "json"))
    assert plain["paper"]["attainment"] == {"mean": 0.5, "low": 0.4, "high": 0.6}


def test_json_is_the_report(report):
    assert json.loads(render_simulation(report, "json")) == json.loads(json.dumps(report.to_dict()))


def test_additivity():
    row = Additivity(
        config="L4",
        limit="TPOT",
        mixes=(Mix(sizes=((10, 20),), load_at_limit=0.9),) * 3,
        mean_error=-0.1,
        worst_error=-0.2,
    )
    text = render_additivity({"L4": row}, colour=False)
    assert ["L4", "TPOT", "3", "-10.0%", "-20.0%", "optimistic"] in [line.split() for line in text.splitlines()]
    assert json.loads(render_additivity({"L4": row}, "json"))["L4"]["verdict"] == "optimistic"


def test_the_price_of_unknown_lengths():
    share = {
        f"{fleet}/{router}": Estimate(mean=mean, low=None, high=None)
        for (fleet, router), mean in {
            ("by-size", "oracle"): 0.99,
            ("by-size", "input-only"): 0.91,
            ("input-only", "oracle"): 0.98,
            ("input-only", "input-only"): 0.97,
        }.items()
    }
    price = LengthPrice(
        by_size_usd_per_hour=4.0,
        input_only_usd_per_hour=5.0,
        by_size_replicas={"L4": 1, "H100": 2},
        input_only_replicas={"L4": 3},
        attainment=share,
    )
    text = render_length_price(price, colour=False)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "by-size 1 x L4 + 2 x H100 $4.00 99.00% (none) 91.00% (none)" in rows
    assert "input-only 3 x L4 $5.00 98.00% (none) 97.00% (none)" in rows
    assert "cost 25.0% more" in " ".join(rows)
    assert json.loads(render_length_price(price, "json"))["price_share"] == pytest.approx(0.25)
