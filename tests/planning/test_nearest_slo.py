"""The nearest SLO: against known thresholds, each limit by itself, and what a plan says of it."""

from __future__ import annotations

import numpy as np
import pytest

from melange.planning.nearest_slo import nearest_slo_reasons, nearest_slos
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.slo import Slo

ASKED = Slo(ttft_s=0.1, tpot_s=0.02, e2e_s=2.0, tpot_definition="decode")


def floors(**least_s):
    """An SLO is kept where no limit is below its floor."""
    return lambda slo: all(getattr(slo, f"{name}_s") >= least for name, least in least_s.items())


@pytest.mark.parametrize("name", ["ttft", "tpot", "e2e"])
@pytest.mark.parametrize("factor", [1.004, 1.3, 7.0, 99.0])
def test_a_limit_that_binds_alone_is_loosened_alone(name, factor):
    asked = ASKED.thresholds_s[name]
    (found,) = nearest_slos(ASKED, floors(**{name: asked * factor}))
    assert factor - 1e-9 <= found.thresholds_s[name] / asked <= factor * 1.01 + 0.011
    assert {k: v for k, v in found.thresholds_s.items() if k != name} == {
        k: v for k, v in ASKED.thresholds_s.items() if k != name
    }


def test_several_are_loosened_as_little_as_each_must_be():
    keeps = floors(ttft=0.5, tpot=0.03)
    (found,) = nearest_slos(ASKED, keeps)
    assert keeps(found)
    assert found.ttft_s == pytest.approx(0.5, rel=0.02)
    assert found.tpot_s == pytest.approx(0.03, rel=0.02)
    assert found.e2e_s == ASKED.e2e_s


def test_either_of_two_may_be_enough_the_nearer_first():
    found = nearest_slos(ASKED, lambda slo: slo.ttft_s >= 0.3 or slo.tpot_s >= 0.03)
    assert [np.round(slo.tpot_s, 3) for slo in found] == [0.03, 0.02]
    assert found[1].ttft_s == pytest.approx(0.3, rel=0.02)
    (text,) = nearest_slo_reasons(ASKED, lambda slo: slo.ttft_s >= 0.3 or slo.tpot_s >= 0.03)
    assert text.startswith("the nearest SLO that the same GPUs can meet has TPOT <= 30")
    assert " ms or TTFT <= 30" in text
    assert text.endswith(", the rest as it is")


def test_nothing_may_be_near_enough():
    assert nearest_slos(ASKED, lambda slo: False) == ()
    (text,) = nearest_slo_reasons(ASKED, lambda slo: False)
    assert text.startswith("even a hundredfold looser SLO is not met there")
    assert nearest_slo_reasons(Slo(), lambda slo: False) == []


STRICT_S = {("azure-conversation", "L40S"): 0.1, ("azure-code", "L4"): 0.1, ("mooncake-conversation", "H200"): 1.0}


@pytest.mark.parametrize(("name", "gpu"), STRICT_S)
def test_a_plan_names_the_limit_that_binds_and_it_is_enough(name, gpu):
    spec = load_workload(name).limited(only=(gpu,))
    strict = spec.with_slo(Slo(ttft_s=STRICT_S[name, gpu], tpot_s=0.5))
    plan = plan_fleet(strict)
    text = next(reason for reason in plan.reasons if "nearest SLO" in reason)
    assert "TPOT" not in text
    ttft_ms = float(text.split("TTFT <= ")[1].split(" ms")[0])
    assert plan_fleet(strict.with_slo(Slo(ttft_s=ttft_ms * 1.001 / 1000, tpot_s=0.5))).solved
    assert not plan_fleet(strict.with_slo(Slo(ttft_s=ttft_ms * 0.97 / 1000, tpot_s=0.5))).solved
