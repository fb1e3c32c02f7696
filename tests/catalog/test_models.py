"""The catalog's models against what their publishers state."""

from __future__ import annotations

import pytest

from melange import InputError, Model, load_catalog

# Parameters in 1e9, as the Hub states for the checkpoints' tensors; of models for text alone, or of their text part.
PUBLISHED = {
    "llama-2-7b": 6.738, "llama-2-13b": 13.016, "llama-2-70b": 68.977, "codellama-34b": 33.744,
    "llama-3-8b": 8.03, "llama-3-70b": 70.554, "llama-3.1-8b": 8.03, "llama-3.1-70b": 70.554,
    "llama-3.1-405b": 405.853, "llama-3.2-1b": 1.236, "llama-3.2-3b": 3.213, "llama-3.3-70b": 70.554,
    "qwen2-7b": 7.616, "qwen2-72b": 72.706, "qwen2-57b-a14b": 57.409, "qwen2.5-0.5b": 0.494,
    "qwen2.5-1.5b": 1.544, "qwen2.5-3b": 3.086, "qwen2.5-7b": 7.616, "qwen2.5-14b": 14.77,
    "qwen2.5-32b": 32.764, "qwen2.5-72b": 72.706, "qwq-32b": 32.764, "qwen3-0.6b": 0.596,
    "qwen3-1.7b": 1.721, "qwen3-4b": 4.022, "qwen3-8b": 8.191, "qwen3-14b": 14.768,
    "qwen3-32b": 32.762, "qwen3-30b-a3b": 30.532, "qwen3-235b-a22b": 235.094, "qwen3-coder-480b-a35b": 480.155,
    "qwen3-next-80b-a3b": 79.67, "mistral-7b": 7.248, "mistral-7b-v0.1": 7.242, "ministral-8b": 8.02,
    "mistral-nemo-12b": 12.248, "codestral-22b": 22.247, "mistral-small-24b": 23.572, "mistral-large-123b": 122.61,
    "mixtral-8x7b": 46.703, "mixtral-8x22b": 140.621, "gemma-2-2b": 2.614, "gemma-2-9b": 9.242,
    "gemma-2-27b": 27.227, "gemma-3-1b": 1.0, "gemma-3-4b": 3.88, "gemma-3-12b": 11.766,
    "gemma-3-27b": 27.009, "phi-3-mini": 3.821, "phi-3-medium": 13.96, "phi-3.5-moe": 41.873,
    "phi-4": 14.66, "phi-4-mini": 3.836, "gpt-oss-20b": 20.91, "gpt-oss-120b": 116.83,
    "deepseek-67b": 67.425, "deepseek-v2-lite": 15.706, "deepseek-v2": 235.741, "deepseek-v3": 671.026,
    "deepseek-r1": 671.026, "glm-4-9b": 9.4, "glm-4-32b": 32.566, "glm-4.5-air": 106.85,
    "glm-4.5": 352.8, "glm-4.6": 352.8, "kimi-k2": 1026.4, "nemotron-3-nano-30b-a3b": 31.578,
    "nemotron-h-56b": 56.3, "command-r7b": 8.028, "command-r": 32.297, "command-r-plus": 103.811,
    "command-a": 111.058, "olmo-2-7b": 7.299, "olmo-2-13b": 13.716, "olmo-2-32b": 32.234,
    "olmoe-1b-7b": 6.919, "smollm3-3b": 3.075, "granite-3.3-8b": 8.171, "falcon3-7b": 7.456,
    "yi-34b": 34.389, "seed-oss-36b": 36.151, "jamba-1.5-mini": 51.57, "jamba-1.5-large": 398.56,
    "ernie-4.5-300b-a47b": 300.0, "hunyuan-a13b": 80.39,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_counted_parameters_are_the_published_ones(name: str) -> None:
    assert load_catalog().model(name).parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=0.004)


SHAPE = {
    "name": "x", "parameters": 1e9, "layers": 12, "hidden": 64, "heads": 4, "kv_heads": 2, "head_size": 16,
    "intermediate": 128, "vocabulary": 100,
}  # fmt: skip


def test_kinds_of_layers_add_up() -> None:
    model = Model(**SHAPE, window_layers=6, window_tokens=128, linear_layers=3, plain_layers=1)  # type: ignore[arg-type]
    assert (model.kept_layers, model.growing_layers, model.bounded_layers, model.attention_layers) == (2, 2, 6, 8)
    assert model.kv_bytes_per_token() == 2 * 2 * 2 * 16 * (2 + 6)


def test_layers_that_are_all_windows_are_counted_as_growing() -> None:
    model = Model(**SHAPE, window_layers=12, window_tokens=128)  # type: ignore[arg-type]
    assert (model.kept_layers, model.growing_layers, model.bounded_layers) == (0, 12, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"kv_heads": 3},
        {"layers": 0},
        {"experts_per_token": 2},
        {"active_parameters": 2e9},
        {"window_layers": 3},
        {"window_tokens": 3},
        {"linear_layers": 12},
        {"plain_layers": 13},
        {"state_bytes": -1.0},
        {"expert_layers": 1},
    ],
)
def test_impossible_models_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Model(**{**SHAPE, **bad})  # type: ignore[arg-type]
