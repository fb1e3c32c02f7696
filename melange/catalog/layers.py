"""The layers of a config.json: what mixes tokens in each, what multiplies them, and how many parameters that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from melange.catalog.config_values import ConfigValues
from melange.errors import InputError

Mixer = Literal["full", "window", "linear", "none"]
Mlp = Literal["dense", "experts", "both", "none"]

_MIXERS: dict[str, Mixer] = {
    "full_attention": "full", "attention": "full", "global": "full", "global_attention": "full", "nope": "full",
    "sliding_attention": "window", "sliding": "window", "chunked_attention": "window", "local": "window",
    "linear_attention": "linear", "mamba": "linear", "mamba2": "linear", "conv": "linear", "recurrent": "linear",
    "hybrid": "full", "moe": "none", "mlp": "none", "deepseek_sparse_attention": "full", "sparse_attention": "full",
}  # fmt: skip
_PATTERN: dict[str, tuple[Mixer, Mlp]] = {
    "M": ("linear", "none"), "*": ("full", "none"), "-": ("none", "dense"), "E": ("none", "experts"),
}  # fmt: skip
_SIGNS = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
# They share Llama's keys, but their MLP has two matrices in place of three.
TWO_MATRIX_MLP = (
    "gpt_neox", "gpt_neox_japanese", "phi", "starcoder2", "persimmon", "nemotron", "nemotron_h", "arcee",
)  # fmt: skip
_EVERY_SIXTH = ("gemma3", "gemma3_text")
_EVERY_SECOND = ("gemma2", "gpt_oss")
# Their window is on wherever it is stated; others say so (use_sliding_window) or name their layers.
_ALL_WINDOW = ("mistral", "mixtral", "phi3", "phimoe", "starcoder2", "ministral")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Per layer what mixes its tokens and what its MLP is; ``window_tokens`` of the window layers, 0 without any."""

    mixers: tuple[Mixer, ...]
    mlps: tuple[Mlp, ...]
    window_tokens: int

    def mixing(self, kind: Mixer) -> int:
        return self.mixers.count(kind)

    @property
    def dense(self) -> int:
        return self.mlps.count("dense") + self.mlps.count("both")

    @property
    def experts(self) -> int:
        return self.mlps.count("experts") + self.mlps.count("both")


def layers_of(config: ConfigValues, kind: str, experts: int) -> Layers:
    """The layers that a config describes by lists, intervals and offsets, as each family writes them."""
    blocks = config.get("layers_block_type")
    default = len(blocks) if isinstance(blocks, list) and blocks else None
    count = config.count("num_hidden_layers", "n_layer", "num_layers", default=default)
    pattern = config.names("hybrid_override_pattern", count)
    if pattern is None and isinstance(blocks, list) and {"moe", "mlp"} & set(map(str, blocks)):
        pattern = config.names("layers_block_type", count)
    if pattern is not None:
        return _one_part_each(pattern)
    window = config.count("sliding_window", "sliding_window_size", "attention_chunk_size", default=0, least=0)
    config.pass_over(("sliding_window", "sliding_window_size", "attention_chunk_size"))
    mixers = _mixers(config, kind, count, window)
    mixers = [mixer if mixer != "window" or window else "full" for mixer in mixers]
    return Layers(
        mixers=tuple(mixers),
        mlps=tuple(_mlps(config, kind, count, experts)),
        window_tokens=window if "window" in mixers else 0,
    )


def _one_part_each(pattern: list[object]) -> Layers:
    """Layers that are either a mixer or an MLP, as Nemotron-H names them, by signs or by words."""
    signs = [_SIGNS.get(str(name), str(name)) for name in pattern]
    if not set(signs) <= set(_PATTERN):
        odd = ", ".join(sorted(set(signs) - set(_PATTERN)))
        raise InputError(f"its layers are called {odd}", fix="use M (mamba), * (attention), E (moe) and - (mlp)")
    pairs = [_PATTERN[sign] for sign in signs]
    return Layers(mixers=tuple(pair[0] for pair in pairs), mlps=tuple(pair[1] for pair in pairs), window_tokens=0)


def _mixers(config: ConfigValues, kind: str, count: int, window: int) -> list[Mixer]:
    config.pass_over(("full_attention_interval", "attn_layer_period", "attn_layer_offset"))
    for key in ("layer_types", "layers_block_type", "hybrid_layer_pattern", "attn_type_list", "block_types"):
        named = config.names(key, count)
        if named is not None:
            return [_mixer(key, name) for name in named]
    linear = config.get("linear_attn_config")
    if isinstance(linear, dict) and isinstance(linear.get("full_attn_layers"), list):
        full = set(linear["full_attn_layers"])
        return ["full" if layer + 1 in full else "linear" for layer in range(count)]
    period = config.count("attn_layer_period", default=0, least=0)
    if period:  # Jamba: one attention layer in each period, Mamba's else
        offset = config.count("attn_layer_offset", default=0, least=0)
        return ["full" if layer % period == offset else "linear" for layer in range(count)]
    interval = config.count("full_attention_interval", default=0, least=0)
    if interval:
        return ["full" if (layer + 1) % interval == 0 else "linear" for layer in range(count)]
    return _window_mixers(config, kind, count, window)


def _window_mixers(config: ConfigValues, kind: str, count: int, window: int) -> list[Mixer]:
    """Full layers among windows of one length, where no list names them."""
    if kind.startswith("llama4"):
        ropeless = config.names("no_rope_layers", count)
        every = config.count("no_rope_layer_interval", default=4)
        return [
            "window" if (ropeless[layer] if ropeless else (layer + 1) % every) else "full" for layer in range(count)
        ]
    every = config.count("sliding_window_pattern", "_sliding_window_pattern", default=0, least=0)
    every = every or (6 if kind in _EVERY_SIXTH else 2 if kind in _EVERY_SECOND else 0)
    if not window:
        return ["full"] * count
    if every:
        return ["full" if (layer + 1) % every == 0 else "window" for layer in range(count)]
    if config.get("use_sliding_window", kind in _ALL_WINDOW):
        first = config.count("max_window_layers", default=0, least=0) if kind.startswith("qwen") else 0
        return ["full" if layer < first else "window" for layer in range(count)]
    return ["full"] * count


def _mixer(key: str, name: object) -> Mixer:
    if isinstance(name, int) and not isinstance(name, bool) and name in (0, 1):
        windowed = key == "hybrid_layer_pattern"  # there a 1 means a window, in attn_type_list full attention
        return ("window" if name else "full") if windowed else ("full" if name else "linear")
    found = _MIXERS.get(str(name))
    if found is None:
        raise InputError(f"{key} names {name!r}", fix=f"layers that are modelled: {', '.join(sorted(_MIXERS))}")
    return found


def _mlps(config: ConfigValues, kind: str, count: int, experts: int) -> list[Mlp]:
    if experts == 1:
        return ["dense"] * count
    if config.get("enable_moe_block"):
        return ["both"] * count
    config.pass_over(("first_k_dense_replace", "moe_layer_freq", "mlp_only_layers", "decoder_sparse_step"))
    named = config.names("mlp_layer_types", count)
    if named is not None:
        return ["dense" if name == "dense" else "experts" for name in named]
    frequency = config.get("moe_layer_freq", 1)
    if isinstance(frequency, list):
        return ["experts" if one else "dense" for one in config.names("moe_layer_freq", count) or []]
    chosen = config.get("moe_layers")
    if isinstance(chosen, list):
        return ["experts" if layer in chosen else "dense" for layer in range(count)]
    period = config.count("expert_layer_period", "interleave_moe_layer_step", "decoder_sparse_step", default=1)
    period = max(period, config.count("moe_layer_freq", default=1))
    offset = config.count("expert_layer_offset", default=period - 1, least=0)
    first = config.count("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", default=0, least=0)
    dense = config.get("mlp_only_layers", [])
    return [
        "experts" if layer >= first and layer % period == offset % period and layer not in dense else "dense"
        for layer in range(count)
    ]
