"""A plain continuous-batching scheduler over lists: what the compiled one must agree with, request by request.

Written from vLLM V1's rules with nothing clever: every running request is walked in every iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from melange.perfmodel.clock import StepClock


@dataclass
class Item:
    arrival_s: float
    input_tokens: int
    output_tokens: int
    generated: int = 0
    computed: int = 0
    blocks: int = 0
    preemptions: int = 0
    decoding: bool = False
    start_s: float = np.nan
    first_s: float = np.nan
    end_s: float = np.nan

    def bounded_blocks(self, clock: StepClock) -> int:
        longest = self.input_tokens + self.output_tokens - 1
        return int(np.ceil((clock.held_tokens(longest) - longest) / clock.block_tokens))

    def bounded_tokens(self, clock: StepClock) -> float:
        return float(clock.bounded_read_tokens(self.input_tokens + self.output_tokens / 2))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.generated


@dataclass
class Scheduler:
    clock: StepClock
    waiting: list[Item] = field(default_factory=list)
    running: list[Item] = field(default_factory=list)
    decisions: list[list[tuple[float, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = self.clock.kv_capacity_tokens // self.clock.block_tokens

    def need(self, item: Item, tokens: int) -> int:
        return -(-tokens // self.clock.block_tokens) - item.blocks

    def take(self, item: Item, tokens: int) -> bool:
        need = self.need(item, tokens)
        if need > self.free:
            return False
        self.free -= need
        item.blocks += need
        return True

    def preempt(self) -> Item:
        item = self.running.pop()
        self.free += item.blocks + item.bounded_blocks(self.clock)
        item.blocks = item.computed = 0
        item.preemptions += 1
        item.decoding = False
        self.waiting.insert(0, item)
        return item

    def schedule(self, now: float) -> list[tuple[Item, int]]:
        budget, batch, preempted, place = self.clock.max_batched_tokens, [], False, 0
        while place < len(self.running) and budget > 0:
            item = self.running[place]
            chunk = min(item.tokens - item.computed, budget)
            fits = self.take(item, item.computed + chunk)
            while not fits:
                preempted = True
                if self.preempt() is item:
                    break
                fits = self.take(item, item.computed + chunk)
            if not fits:
                break
            batch.append((item, chunk))
            budget -= chunk
            place += 1
        while self.waiting and budget > 0 and not preempted and len(self.running) < self.clock.max_num_seqs:
            item = self.waiting[0]
            bounded = item.bounded_blocks(self.clock)
            if self.need(item, item.tokens) + bounded > self.free:
                break
            chunk = min(item.tokens, budget)
            assert self.take(item, chunk)
            self.free -= bounded
            self.running.append(self.waiting.pop(0))
            item.start_s = now
            batch.append((item, chunk))
            budget -= chunk
        return batch

    def step(self, now: float) -> float:
        batch = self.schedule(now)
        decodes = [item for item, _ in batch if item.decoding]
        prompts = [(item, chunk) for item, chunk in batch if not item.decoding]
        duration = self.clock.iteration_s(
            decodes=len(decodes),
            kv_tokens=sum(i.computed for i, _ in batch) + sum(i.bounded_tokens(self.clock) for i in decodes),
            prefill_tokens=sum(chunk for _, chunk in prompts),
            prefill_pairs=sum(float(self.clock.prefill_pairs(c, i.computed)) for i, c in prompts),
            prefills=len(prompts),
            new_requests=sum(item.computed == 0 for item, _ in prompts),
        )
        end = now + float(duration)
        for item, chunk in batch:
            item.computed += chunk
            if item.computed == item.tokens:
                item.generated += 1
                item.decoding = True
                item.first_s = end if np.isnan(item.first_s) else item.first_s
                if item.generated == item.output_tokens:
                    item.end_s = end
                    self.free += item.blocks + item.bounded_blocks(self.clock)
                    self.running.remove(item)
        return end


def reference(clock: StepClock, arrival_s: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> list[Item]:
    """The requests as one replica serves them; chunked prefill only."""
    items = [Item(float(t), int(i), int(o)) for t, i, o in zip(arrival_s, inputs, outputs, strict=True)]
    scheduler, now, coming = Scheduler(clock), 0.0, list(items)
    while coming or scheduler.waiting or scheduler.running:
        if not scheduler.waiting and not scheduler.running:
            now = max(now, coming[0].arrival_s)
        # A request that arrives at the very end of an iteration misses the next one in the kernel, too.
        while coming and (coming[0].arrival_s < now or not (scheduler.waiting or scheduler.running)):
            scheduler.waiting.append(coming.pop(0))
        now = scheduler.step(now)
    return items
