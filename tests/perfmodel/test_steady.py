"""The steady state against a small event simulation of the same engine, Little's law, and queueing limits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfmodel.clocks import clock

from melange.errors import InputError
from melange.perfmodel.clock import causal_pairs
from melange.perfmodel.steady import SteadyState
from melange.slo import Slo


def simulate(clock, input_tokens, output_tokens, *, rate_rps=None, concurrency=None, requests=1500, seed=1):
    """Iterations of a continuous-batching engine without preemption: (rate, mean TTFT, mean decode TPOT).

    Output lengths are uniform within a half of their mean: equal ones would keep a closed loop marching in step.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate_rps, requests)) if rate_rps else np.zeros(requests)
    waiting, prefill, decode = [], [], []
    now, upcoming, done = 0.0, 0, []
    limit = concurrency or clock.max_num_seqs
    if concurrency:
        waiting, upcoming = [{"at": 0.0, "left": input_tokens} for _ in range(concurrency)], concurrency
    while len(done) < requests:
        while rate_rps and upcoming < requests and arrivals[upcoming] <= now:
            waiting.append({"at": arrivals[upcoming], "left": input_tokens})
            upcoming += 1
        room = limit - len(prefill) - len(decode)
        started = waiting[:room]
        prefill, waiting = prefill + started, waiting[room:]
        if not prefill and not decode:
            now = arrivals[upcoming]
            continue
        running = decode if clock.chunked_prefill or not prefill else []
        budget, pieces = clock.max_batched_tokens - len(running), []
        for request in prefill:
            piece = min(request["left"], budget)
            if piece and (clock.chunked_prefill or piece == request["left"]):
                pieces.append((request, piece))
                budget -= piece
        now += float(
            clock.iteration_s(
                decodes=len(running),
                kv_tokens=sum(input_tokens + r["made"] for r in running),
                prefill_tokens=sum(piece for _, piece in pieces),
                prefill_pairs=sum(float(causal_pairs(p, input_tokens - r["left"])) for r, p in pieces),
                prefills=len(pieces),
                new_requests=sum(r["left"] == input_tokens for r, _ in pieces),
            )
        )
        for request in running:
            request["made"] += 1
        for request, piece in pieces:
            request["left"] -= piece
            if not request["left"]:
                wanted = int(rng.integers(output_tokens // 2, output_tokens * 3 // 2 + 1))
                request |= {"first": now, "made": 1, "wanted": wanted}
                decode = [*decode, request]
        prefill = [request for request in prefill if request["left"]]
        finished = [request for request in decode if request["made"] >= request["wanted"]]
        decode = [request for request in decode if request["made"] < request["wanted"]]
        for request in finished:
            done.append({**request, "end": now})
            if concurrency:
                waiting.append({"at": now, "left": input_tokens})
    kept = done[len(done) // 5 :]
    span = kept[-1]["end"] - done[len(done) // 5 - 1]["end"]
    ttft = np.mean([r["first"] - r["at"] for r in kept])
    tpot = np.mean([(r["end"] - r["first"]) / (r["wanted"] - 1) for r in kept])
    return len(kept) / span, ttft, tpot


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(200, 100), (1500, 60), (50, 300)])
def test_saturation_is_the_simulated_one(chunked, input_tokens, output_tokens):
    c = clock(chunked_prefill=chunked)
    state = SteadyState(c, input_tokens, output_tokens)
    rate, _, _ = simulate(c, input_tokens, output_tokens, concurrency=64)
    assert float(state.saturation_rps) == pytest.approx(rate, rel=0.08)


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(("load", "ttft_rel"), [(0.4, 0.15), (0.8, 0.45)])
@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(200, 100), (1500, 60)])
def test_open_loop_latencies_are_the_simulated_ones(chunked, load, ttft_rel, input_tokens, output_tokens):
    c = clock(chunked_prefill=chunked)
    state = SteadyState(c, input_tokens, output_tokens)
    rate = load * float(state.saturation_rps)
    point = state.open_at_rate(rate)
    _, ttft, tpot = simulate(c, input_tokens, output_tokens, rate_rps=rate, requests=2000)
    assert float(point.tpot_decode_s) == pytest.approx(tpot, rel=0.12)
    assert float(point.ttft_s) == pytest.approx(ttft, rel=ttft_rel)


@pytest.mark.parametrize("chunked", [True, False])
def test_littles_law(chunked):
    state = SteadyState(clock(chunked_prefill=chunked), [100, 800], [200, 50])
    point = state.open(0.4)
    residence = point.e2e_s - point.wait_s
    np.testing.assert_allclose(point.concurrency, point.rate_rps * residence, rtol=0.05)


def test_a_lone_request_by_hand():
    # Prefill of 100 tokens: 2 ms + 0.02 ms + 1 ms host, GEMM (6**4 + 4**4)**0.25 = 6.279 ms, attention 5050 pairs
    # x 1 ns = 0.005 ms: 9.304 ms. Then 10 decodes, 2.02 ms host + GEMM 6 ms (0.04 ms of compute hides) + KV reads of
    # 105.5 tokens x 50 ns = 0.005 ms: 8.025 ms each.
    state = SteadyState(clock(chunked_prefill=False), 100, 11)
    point = state.clients(1.0)
    assert float(point.ttft_s) == pytest.approx(9.304e-3, rel=1e-3)
    request_s = 9.304e-3 + 10 * 8.025e-3
    assert float(point.rate_rps) == pytest.approx(1 / request_s, rel=1e-3)


def test_kv_capacity_limits_the_batch_by_hand():
    # 10,000 tokens / (500 + 100/2 + half a block of 8) = 17.92 requests at once.
    state = SteadyState(clock(kv_capacity_tokens=10_000), 500, 100)
    assert float(state.slots) == pytest.approx(10_000 / 558)
    assert state.is_kv_bound


def test_requests_that_do_not_fit_have_rate_zero():
    state = SteadyState(clock(kv_capacity_tokens=1_000), [500, 2000], [100, 100])
    assert state.saturation_rps[0] > 0
    assert state.saturation_rps[1] == 0
    assert list(state.max_rate_rps(Slo(tpot_s=1.0)) > 0) == [True, False]
    short = SteadyState(clock(), 500, 100, max_request_tokens=512)
    assert float(short.saturation_rps) == 0


def test_prefix_hits_raise_the_rate_but_not_beyond_free_prefill():
    plain, cached, free = (float(SteadyState(clock(), 1500, 50, c).saturation_rps) for c in (0, 1000, 1499))
    assert plain < cached < free
    assert free < float(SteadyState(clock(), 1, 50).saturation_rps)


def test_one_output_token_has_no_decode_tpot_to_miss():
    state = SteadyState(clock(), 300, 1)
    assert float(state.max_rate_rps(Slo(tpot_s=1e-6, tpot_definition="decode"))) > 0
    assert float(state.max_rate_rps(Slo(tpot_s=1e-6, tpot_definition="e2e_per_token"))) == 0


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1, 3000),
    st.floats(1, 1000),
    st.booleans(),
    st.integers(1, 300),
    st.integers(2_000, 500_000),
)
def test_rates_grow_with_looser_limits_and_never_pass_saturation(inputs, outputs, chunked, seqs, capacity):
    state = SteadyState(clock(chunked_prefill=chunked, max_num_seqs=seqs, kv_capacity_tokens=capacity), inputs, outputs)
    rates = [float(state.max_rate_rps(Slo(tpot_s=limit, tpot_definition="decode"))) for limit in (0.01, 0.03, 0.1, 10)]
    assert all(low <= high * (1 + 1e-6) for low, high in pairwise(rates))
    assert rates[-1] <= float(state.saturation_rps) * (1 + 1e-9)
    slower = float(state.max_rate_rps(Slo(tpot_s=0.03, tpot_definition="decode", ttft_s=0.2)))
    assert slower <= rates[1] * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.02, 0.98), st.floats(20, 2000), st.floats(2, 500), st.booleans())
def test_quantiles_ascend_and_agree_with_the_shares_within(share, inputs, outputs, chunked):
    point = SteadyState(clock(chunked_prefill=chunked), inputs, outputs).open(share)
    if not np.isfinite(point.wait_s):
        return
    for quantile, within in (
        (point.ttft_quantile_s, point.ttft_within),
        (point.tpot_quantile_s, point.tpot_within),
    ):
        values = [float(quantile(p)) for p in (0.5, 0.9, 0.95, 0.99)]
        assert values == sorted(values)
        assert float(within(values[-1] * (1 + 1e-9))) >= 0.99 - 1e-6
    e2e = [float(point.e2e_quantile_s(p)) for p in (0.5, 0.9, 0.99)]
    assert e2e == sorted(e2e)


def test_an_attainment_promise_costs_rate():
    state = SteadyState(clock(), [200, 1500], [100, 60])
    mean = state.max_rate_rps(Slo(tpot_s=0.03, tpot_definition="decode", ttft_s=0.5))
    p99 = state.max_rate_rps(Slo(tpot_s=0.03, tpot_definition="decode", ttft_s=0.5, attainment=0.99))
    assert (p99 < mean).all()
    assert (p99 > 0).all()


def test_at_saturation_the_queue_is_endless():
    point = SteadyState(clock(), 200, 100).open(1.0)
    assert np.isinf(point.ttft_s)
    assert not point.meets(Slo(ttft_s=1000.0))
    assert point.meets(Slo(tpot_s=10.0, tpot_definition="decode"))
    assert float(point.ttft_within(1000.0)) == 0
    assert np.isinf(point.e2e_quantile_s(0.9))


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="not positive"):
        SteadyState(clock(), [100, 0], [10, 10])


@pytest.mark.parametrize("chunked", [True, False])
def test_a_looser_limit_never_lowers_the_rate(chunked):
    # KV-bound: just below full it is faster than at saturation, where preempted prompts are prefilled again.
    tight = clock(kv_capacity_tokens=8_000, recompute_share=1.0, chunked_prefill=chunked)
    state = SteadyState(tight, [25, 100, 250], [100, 250, 100])
    limits = np.geomspace(0.008, 0.2, 40)
    rates = np.array([state.max_rate_rps(Slo(tpot_s=limit, tpot_definition="decode")) for limit in limits])
    assert (np.diff(rates, axis=0) >= -1e-9).all()
    np.testing.assert_allclose(rates[-1], state.saturation_rps)
    peak = np.max([state.open(share).rate_rps for share in np.linspace(0.5, 1.0, 50)], axis=0)
    assert (peak > 1.005 * state.saturation_rps).any(), "the case must be one that dips"


@pytest.mark.parametrize("clients", [1, 16, 64, 200])
def test_clients_beyond_the_slots_wait_for_a_first_token(clients):
    c = clock()
    point = SteadyState(c, 400, 100).clients(clients)
    assert float(point.rate_rps * point.e2e_s) == pytest.approx(clients, rel=0.01 if clients > 64 else 0.25)
    assert (float(point.wait_s) > 1.0) == (clients > 64)
    if clients <= 64:
        rate, _, tpot = simulate(c, 400, 100, concurrency=clients)
        assert float(point.rate_rps) == pytest.approx(rate, rel=0.15)
        assert float(point.tpot_decode_s) == pytest.approx(tpot, rel=0.15)


def test_more_clients_than_slots_only_wait_longer():
    state = SteadyState(clock(), [400, 2000], [100, 10])
    few, many = state.clients(1000), state.clients([2000, 2000])
    np.testing.assert_allclose(many.rate_rps, few.rate_rps, rtol=1e-4)
    np.testing.assert_allclose(many.wait_s - few.wait_s, 1000 / few.rate_rps, rtol=1e-4)


@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(16_000, 4), (30_000, 8), (9_000, 4)])
def test_a_prompt_of_more_iterations_than_its_output_has_tokens(input_tokens, output_tokens):
    c = clock()
    rate, _, _ = simulate(c, input_tokens, output_tokens, concurrency=8, requests=300)
    assert float(SteadyState(c, input_tokens, output_tokens).saturation_rps) == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_closed_loop_is_never_above_saturation_and_little_s_law_holds(chunked):
    state = SteadyState(clock(chunked_prefill=chunked), [100, 1000, 2000, 2000], [400, 50, 2, 10])
    before = np.zeros(4)
    for clients in (1, 2, 3, 4, 8, 16, 64, 256):
        point = state.clients(clients)
        assert (point.rate_rps <= state.saturation_rps * (1 + 1e-9)).all()
        assert (point.rate_rps >= before * 0.95).all()  # a full KV cache prefills some prompts again
        np.testing.assert_allclose(point.rate_rps * point.e2e_s, clients, rtol=1e-9)
        before = point.rate_rps
