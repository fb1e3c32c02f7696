from __future__ import annotations

import json

import pytest

from melange import InputError, load_profile
from melange.capacity.rates import RateTable
from melange.files.records import from_plain, to_plain


@pytest.fixture(scope="module")
def profile(module_spec):
    return next(iter(load_profile(module_spec).configs.values()))


def test_rows_are_input_sizes_and_columns_output_sizes(profile):
    table = profile.table()
    assert len(table.max_rate_rps) == len(table.input_tokens)
    assert {len(row) for row in table.max_rate_rps} == {len(table.output_tokens)}
    i, o = 0, len(table.output_tokens) - 1
    assert table.max_rate_rps[i][o] == pytest.approx(profile.rate_at(table.input_tokens[i], table.output_tokens[o]))
    assert table.source[i][o] == "published"
    assert table.assumed_slo is True


def test_a_table_comes_back_from_its_record(profile):
    table = profile.table()
    assert from_plain(RateTable, json.loads(json.dumps(to_plain(table))), "no table") == table


def test_rates_may_be_unknown_and_sizes_may_not():
    table = RateTable(input_tokens=(10.0,), output_tokens=(5.0, 50.0), max_rate_rps=((2.0, None),))
    record = to_plain(table)
    assert from_plain(RateTable, record, "no table") == table
    assert (table.low_rps, table.high_rps, table.source, table.assumed_slo) == ((), (), (), False)
    with pytest.raises(InputError, match="no table: input_tokens"):
        from_plain(RateTable, {**record, "input_tokens": [None]}, "no table")
