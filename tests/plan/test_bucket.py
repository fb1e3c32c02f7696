from __future__ import annotations

import pytest

from melange import InputError, plan_fleet
from melange.files.records import from_plain, to_plain
from melange.plan.bucket import PlanBucket

SIZELESS = {"input_tokens_max": None, "output_tokens_max": None, "rate_rps": 2.0}


def test_a_bucket_is_the_workloads_and_who_serves_it(small_spec):
    plan = plan_fleet(small_spec)
    assert [(bucket.label, bucket.rate_rps) for bucket in plan.buckets] == [
        ("100x100", 2.0), ("100x500", 1.0), ("1000x100", 0.5),
    ]  # fmt: skip
    for bucket in plan.buckets:
        assert sum(bucket.shares.values()) == pytest.approx(1)
        assert set(bucket.shares) <= set(plan.replicas)
        assert set(bucket.max_rate_rps) == set(bucket.sources) == set(plan.configs)
        assert set(bucket.sources.values()) == {"published"}


def test_nobody_serves_a_bucket_until_told():
    bucket, other = PlanBucket(**SIZELESS), PlanBucket(**SIZELESS)
    assert (bucket.shares, bucket.max_rate_rps, bucket.sources) == ({}, {}, {})
    assert bucket.shares is not other.shares


def test_a_rate_may_be_unknown_and_a_share_may_not():
    bucket = PlanBucket(**SIZELESS, shares={"L4": 1.0}, max_rate_rps={"L4": 3.0, "T4": 0.0, "H100": None})
    assert from_plain(PlanBucket, to_plain(bucket), "no bucket") == bucket
    with pytest.raises(InputError, match=r"no bucket: shares"):
        from_plain(PlanBucket, {**to_plain(bucket), "shares": {"L4": None}}, "no bucket")
