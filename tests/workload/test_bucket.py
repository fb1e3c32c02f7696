from __future__ import annotations

from dataclasses import replace

from melange import Bucket


def test_a_workload_gives_the_buckets_with_demand_by_input_then_output(small_spec):
    first, second, third = small_spec.workload.buckets()
    assert [bucket.label for bucket in (first, second, third)] == ["100x100", "100x500", "1000x100"]
    assert second == Bucket(
        input_tokens_max=100,
        output_tokens_max=500,
        rate_rps=1.0,
        mean_input_tokens=60.0,
        mean_output_tokens=250.0,
        mean_product_tokens2=15000.0,
        mean_cached_tokens=0.0,
        load_input_tokens=60.0,
        load_output_tokens=250.0,
    )


def test_the_papers_way_takes_the_load_at_the_upper_edges(small_spec):
    buckets = replace(small_spec.workload, representative="upper_edge").buckets()
    assert [(b.load_input_tokens, b.load_output_tokens) for b in buckets] == [(100, 100), (100, 500), (1000, 100)]
    assert [b.mean_input_tokens for b in buckets] == [60, 60, 600]
