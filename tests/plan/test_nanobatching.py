from __future__ import annotations

import json

import pytest
from plan.builders import EFFECT

from melange import InputError
from melange.files.records import from_plain, to_plain
from melange.plan.nanobatching import NanoBatchingEffect


def test_counts_without_and_with_come_back_as_pairs():
    record = json.loads(json.dumps(to_plain(EFFECT)))
    again = from_plain(NanoBatchingEffect, record, "no effect")
    assert again == EFFECT
    assert again.fleet_change["L4"] == (3, 2)
    with pytest.raises(InputError, match="no effect: fleet_change"):
        from_plain(NanoBatchingEffect, {**record, "fleet_change": {"L4": [3, 2, 1]}}, "no effect")


def test_without_a_fleet_the_costs_are_none_but_never_left_out():
    record = {**to_plain(EFFECT), "without_usd_per_hour": None, "saving_usd_per_hour": None}
    assert from_plain(NanoBatchingEffect, record, "no effect").saving_usd_per_hour is None
    del record["saving_usd_per_hour"]
    with pytest.raises(InputError, match="saving_usd_per_hour"):
        from_plain(NanoBatchingEffect, record, "no effect")
