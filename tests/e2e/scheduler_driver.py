"""Drives vLLM's scheduler and the simulator's over the same arrivals; run by test_scheduler_fidelity in vLLM's Python.

Usage: python scheduler_driver.py MODEL_FOLDER < cases.json > decisions.json. Both sides are stepped by the same clock,
the simulator uncompiled (the same source; that compiling changes nothing is tested elsewhere).
"""

from __future__ import annotations

import json
import os
import sys

os.environ["NUMBA_DISABLE_JIT"] = "1"

import numpy as np
import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from melange.perfmodel.clock import StepClock
from melange.simulator import kernel
from melange.simulator.arrivals import Arrivals
from melange.simulator.batching import begin_iteration, enqueue
from melange.simulator.run import single_run

Decisions = list[dict[str, int]]


def vllm_scheduler(model: str, clock: StepClock) -> Scheduler:
    blocks = clock.kv_capacity_tokens // clock.block_tokens + 1  # vLLM keeps one block as the null block
    cache = CacheConfig(block_size=clock.block_tokens, enable_prefix_caching=False)
    cache.num_gpu_blocks = blocks
    config = VllmConfig(
        model_config=ModelConfig(model=model, dtype="float32", seed=0, max_model_len=2048, skip_tokenizer_init=True),
        scheduler_config=SchedulerConfig(
            max_num_seqs=clock.max_num_seqs,
            max_num_batched_tokens=clock.max_batched_tokens,
            max_model_len=2048,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            async_scheduling=False,
        ),
        cache_config=cache,
        device_config=DeviceConfig(device="cpu"),
    )
    spec = FullAttentionSpec(block_size=clock.block_tokens, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return Scheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=clock.block_tokens,
        log_stats=False,
    )


def request(index: int, input_tokens: int, output_tokens: int) -> Request:
    return Request(
        request_id=str(index),
        prompt_token_ids=[1] * input_tokens,
        sampling_params=SamplingParams(ignore_eos=True, max_tokens=output_tokens),
        pooling_params=None,
    )


def duration(clock: StepClock, step: dict[str, int]) -> float:
    """Any rule will do, as long as both sides use it."""
    return float(clock.iteration_s(decodes=sum(step.values()), kv_tokens=0.0))


def vllm_decisions(model: str, clock: StepClock, arrivals: Arrivals) -> Decisions:
    scheduler = vllm_scheduler(model, clock)
    coming = list(range(len(arrivals)))
    now, steps = 0.0, []
    while coming or scheduler.has_unfinished_requests():
        if not scheduler.has_unfinished_requests():
            now = max(now, float(arrivals.arrival_s[coming[0]]))
        while coming and arrivals.arrival_s[coming[0]] <= now:
            i = coming.pop(0)
            scheduler.add_request(request(i, int(arrivals.input_tokens[i]), int(arrivals.output_tokens[i])))
        output = scheduler.schedule()
        step = {key: int(n) for key, n in output.num_scheduled_tokens.items()}
        names = list(step)
        # A request whose prompt is not yet whole samples nothing.
        sampled = [
            [0] if scheduler.requests[n].num_computed_tokens >= scheduler.requests[n].num_tokens else [] for n in names
        ]
        result = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={n: k for k, n in enumerate(names)},
            sampled_token_ids=sampled,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )
        scheduler.update_from_output(output, result)
        if step:
            steps.append(step)
            now += duration(clock, step)
    return steps


def simulator_decisions(clock: StepClock, arrivals: Arrivals) -> Decisions:
    run = single_run(clock, arrivals)
    m, replica, requests = run.machines, run.machines.replicas[0], run.machines.requests
    coming = list(range(len(arrivals)))
    now, steps = 0.0, []
    while coming or replica.n_running or replica.n_waiting:
        if not replica.n_running and not replica.n_waiting:
            now = max(now, float(arrivals.arrival_s[coming[0]]))
        while coming and arrivals.arrival_s[coming[0]] <= now:
            index = coming.pop(0)
            requests[index].target = requests[index].input_tokens
            requests[index].row = 0
            enqueue(m, 0, index, False)
        before = {int(i): int(requests[i].computed) for i in range(len(requests))}
        begin_iteration(m, 0, now)
        step = {}
        for place in range(replica.n_running):
            index = int(m.running[0, place])
            if place < replica.n_decoding:
                step[str(index)] = 1
            elif requests[index].computed > before[index]:
                step[str(index)] = int(requests[index].computed) - before[index]
        if step:
            steps.append(step)
            now += duration(clock, step)
        replica.end_s = now
        if replica.n_decoding:
            replica.steps += 1
            replica.kv_tokens += replica.n_decoding
            if replica.steps >= replica.next_finish:
                kernel.end_decodes(run, 0, now)
        if replica.n_running > replica.n_decoding:
            kernel.end_prompts(run, 0, now)
    return steps


def main() -> None:
    answers = []
    for case in json.load(sys.stdin):
        clock = StepClock(**case["clock"])
        arrivals = Arrivals(
            arrival_s=np.array(case["arrival_s"]),
            **{f"{k}_tokens": np.array(case[k], dtype=np.int64) for k in ("input", "output", "cached")},
        )
        answers.append(
            {"vllm": vllm_decisions(sys.argv[1], clock, arrivals), "simulator": simulator_decisions(clock, arrivals)}
        )
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
