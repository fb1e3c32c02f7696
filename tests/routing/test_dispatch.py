"""The pressure of a replica by hand, and what it decides."""

from __future__ import annotations

import numpy as np
import pytest
from routing.builders import two_config_plan
from simulator.builders import clock

from melange.routing import Router, new_state, policy_by_name, routing_table
from melange.routing.dispatch import pressure
from melange.slo import Slo

by_hand = getattr(pressure, "py_func", pressure)  # compiled, it can only be called by compiled code


def loaded(slo: Slo, *, requests: int, inputs: float, outputs: float):
    """A table of one replica and its state with these requests in flight, all of them decoding."""
    table = routing_table(two_config_plan(slo, {"large": 1}), {"large": clock()})
    state = new_state(table)
    state.requests[0], state.input_tokens[0], state.output_tokens[0] = requests, inputs, outputs
    return table, state


@pytest.mark.parametrize("definition", ["decode", "e2e_per_token"])
def test_tpot_counts_the_prompts_that_come_between_two_tokens(definition):
    # Seven in flight of 1000 input and 20 output tokens each, and one more of 1000 and 20.
    slo = Slo(tpot_s=0.05, tpot_definition=definition)
    table, state = loaded(slo, requests=7, inputs=7000.0, outputs=140.0)
    engine = clock()
    prompt_s = float(
        engine.iteration_s(
            decodes=0, kv_tokens=0, prefill_tokens=1024, prefill_pairs=1024 * 1025 / 2, prefills=1, new_requests=1
        )
    ) / 1024  # fmt: skip
    step = float(engine.iteration_s(decodes=8, kv_tokens=8000 + 80))
    # Every step, one in 20 of the seven others ends, and the next one's prompt is computed.
    decode = step + 7 * 1000 / 20 * prompt_s
    ttft = step + 1000 * prompt_s
    tpot = decode if definition == "decode" else decode + ttft / 20
    assert by_hand(table, state, 0, 1000, 20.0) == pytest.approx(tpot / 0.05, rel=1e-6)


def test_least_pressure_knows_a_queue_of_prompts_where_tokens_do_not():
    # Under a TTFT limit, the replica whose prompts are computed is free, however many tokens it still decodes.
    slo = Slo(ttft_s=0.2)
    chosen = {}
    for name in ("least-pressure:oracle", "least-tokens:oracle"):
        router = Router(two_config_plan(slo, {"large": 2}), {"large": clock()}, policy_by_name(name))
        state = router._state
        state.requests[:], state.output_tokens[:] = (4, 3), (1200.0, 30.0)
        state.input_tokens[:], state.prompt_tokens[:] = (400.0, 900.0), (0.0, 900.0)
        chosen[name] = router.route(60, 40).replica
    assert chosen == {"least-pressure:oracle": 0, "least-tokens:oracle": 1}


def test_a_replica_that_failed_comes_back_with_nothing_in_flight():
    router = Router(two_config_plan(replicas={"large": 2}), {"large": clock()}, policy_by_name("least-pressure:oracle"))
    for _ in range(6):
        router.route(90, 40)
    router.down(0)
    router.up(0)
    state = router._state
    assert [float(x[0]) for x in (state.requests, state.input_tokens, state.output_tokens, state.prompt_tokens)] == [
        0
    ] * 4
    assert np.count_nonzero(state.prompt_tokens) == 1
