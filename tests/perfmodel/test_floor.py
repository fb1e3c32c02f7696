"""The least time of a request: never above what the simulated engine takes, for single sizes and mixes; and near it."""

from __future__ import annotations

import numpy as np
import pytest

from melange.catalog.hardware import load_catalog
from melange.perfmodel.floor import least_s
from melange.perfmodel.hardware import ModelledEngine, step_clock
from melange.serving.efficiencies import Efficiencies
from melange.simulator.arrivals import Arrivals
from melange.simulator.run import play_replica

CATALOG = load_catalog()
CONFIGS = [
    ("L4", "llama-3.1-8b", 1, "fp8"),
    ("A100-80GB", "llama-3.1-8b", 1, "fp16"),
    ("H100", "llama-3.1-70b", 4, "fp8"),
]
MIXES = {
    "short": [(25, 25)],
    "prompts": [(8000, 50)],
    "answers": [(100, 1000)],
    "prompts and answers": [(4000, 25), (50, 800)],
    "four": [(25, 250), (500, 100), (2000, 1000), (8000, 20)],
}


def clock_of(gpu, model, tp, precision):
    modelled = ModelledEngine(model=CATALOG.model(model), gpu=CATALOG.gpu(gpu), tp=tp, precision=precision)
    return step_clock(modelled, Efficiencies())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config[0])
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_a_busy_replica_takes_at_least_this_long(config, mix):
    clock = clock_of(*config)
    sizes = np.array(mix)[np.random.default_rng(1).integers(len(mix), size=3000)]
    arrivals = Arrivals(
        arrival_s=np.zeros(len(sizes)),
        input_tokens=sizes[:, 0],
        output_tokens=sizes[:, 1],
        cached_tokens=np.zeros(len(sizes), dtype=np.int64),
    )
    taken_s = float(play_replica(clock, arrivals).requests.end_s.max())
    least = float(least_s(clock, sizes[:, 0], sizes[:, 1]).sum())
    assert 0.5 * taken_s < least <= taken_s


def test_it_adds_up_and_cached_prompts_take_less():
    clock = clock_of(*CONFIGS[1])
    two = least_s(clock, [2000, 100], [100, 400], weights=[1, 1])
    assert two.shape == (2,)
    cached = least_s(clock, 2000, 100, 1500)
    assert float(cached) < float(two[0])
    assert float(least_s(clock, 2000, 100, 5000)) > 0
