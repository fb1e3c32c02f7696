from __future__ import annotations

from dataclasses import replace

import pytest
from plan.builders import ODDS, UNCERTAINTY

from melange import InputError
from melange.files.records import from_plain, to_plain
from melange.plan.odds import Uncertainty


def test_the_first_fleet_has_the_least_regret():
    dearer = replace(ODDS, instances={"H100": 1}, mean_regret_usd_per_hour=0.9)
    assert replace(UNCERTAINTY, fleets=(ODDS, dearer)).least_regret is ODDS


def test_its_record_is_checked_fleet_by_fleet():
    record = to_plain(UNCERTAINTY)
    assert from_plain(Uncertainty, record, "no odds") == UNCERTAINTY
    (fleet,) = record["fleets"]
    for wrong in ({**fleet, "instances": {"L4": 1.5}}, {k: v for k, v in fleet.items() if k != "share_stuck"}):
        with pytest.raises(InputError, match=r"no odds: fleets.*(instances|share_stuck)"):
            from_plain(Uncertainty, {**record, "fleets": [wrong]}, "no odds")
