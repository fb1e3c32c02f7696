"""A clock for tests of what requests experience."""

from __future__ import annotations

from melange.perfmodel.clock import StepClock


def clock(**changes: object) -> StepClock:
    values: dict[str, object] = {
        "overhead_s": 2e-3,
        "per_sequence_s": 2e-5,
        "per_request_s": 1e-3,
        "weights_s": 6e-3,
        "kv_read_s_per_token": 5e-8,
        "compute_s_per_token": 4e-5,
        "attention_s_per_pair": 1e-9,
        "kv_capacity_tokens": 200_000,
        "max_num_seqs": 64,
    }
    return StepClock(**{**values, **changes})  # type: ignore[arg-type]
