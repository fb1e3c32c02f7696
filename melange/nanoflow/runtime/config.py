"""DecoderConfig: the shape of a Llama or Mixtral decoder, from a Hugging Face config.json or from the catalog."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melange.catalog.models import Model
from melange.errors import InputError
from melange.files.text import read_json_object

ARCHITECTURES = ("LlamaForCausalLM", "MixtralForCausalLM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3RopeScaling:
    """Frequency scaling of Llama 3.1 and later: low frequencies are divided by ``factor``, high ones kept."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context_tokens: int

    def __post_init__(self) -> None:
        if not (self.factor > 0 and self.original_context_tokens > 0):
            raise InputError(f"rope scaling: factor {self.factor}, original context {self.original_context_tokens}")
        if not self.high_freq_factor > self.low_freq_factor > 0:
            raise InputError(
                f"rope scaling: high_freq_factor {self.high_freq_factor}, low_freq_factor {self.low_freq_factor}",
                fix="the high factor must exceed the low one",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder-only transformer with RMSNorm, RoPE, grouped-query attention and SwiGLU.

    ``experts`` 0 is a dense (Llama) MLP, above that a Mixtral mixture with ``experts_per_token`` of them for each
    token. ``end_tokens`` are the ids that end a text.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    experts: int = 0
    experts_per_token: int = 0
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: Llama3RopeScaling | None = None
    max_context_tokens: int = 4096
    tied_embeddings: bool = False
    end_tokens: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        positive = (
            "layers",
            "hidden",
            "heads",
            "kv_heads",
            "head_size",
            "intermediate",
            "vocabulary",
            "max_context_tokens",
        )
        for name in positive:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"model {self.name}: {name} is {value!r}", fix="give a positive integer")
        for name in ("norm_eps", "rope_theta"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"model {self.name}: {name} is {value!r}", fix="give a positive number")
        for name in ("experts", "experts_per_token"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise InputError(f"model {self.name}: {name} is {value!r}", fix="give a whole number from 0")
        if self.heads % self.kv_heads:
            raise InputError(f"model {self.name}: {self.heads} heads do not divide into {self.kv_heads} KV heads")
        if self.head_size % 2:
            raise InputError(f"model {self.name}: head_size {self.head_size} is odd", fix="RoPE rotates pairs")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            raise InputError(f"model {self.name}: {self.experts_per_token} of {self.experts} experts a token")

    @property
    def parameters(self) -> int:
        """Number of weights in all tensors."""
        kqv = (self.heads + 2 * self.kv_heads) * self.head_size * self.hidden
        mlp = 3 * self.hidden * self.intermediate * max(1, self.experts) + self.experts * self.hidden
        layer = kqv + self.heads * self.head_size * self.hidden + mlp + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)

    def check_tensor_parallel(self, tp: int) -> None:
        """Raise InputError where ``tp`` processes cannot share the heads and the MLP evenly."""
        if tp < 1 or self.kv_heads % tp or self.intermediate % tp:
            raise InputError(
                f"model {self.name}: {self.kv_heads} KV heads and width {self.intermediate} do not divide by tp {tp}",
                fix="use a tensor-parallel degree that divides both",
            )

    @classmethod
    def from_catalog(cls, model: Model) -> DecoderConfig:
        """The catalog's shape, run as a Llama or Mixtral decoder (no biases, no query or key norms)."""
        mixture = model.experts > 1
        return cls(
            name=model.name,
            layers=model.layers,
            hidden=model.hidden,
            heads=model.heads,
            kv_heads=model.kv_heads,
            head_size=model.head_size,
            intermediate=model.intermediate,
            vocabulary=model.vocabulary,
            experts=model.experts if mixture else 0,
            experts_per_token=model.experts_per_token if mixture else 0,
            max_context_tokens=model.max_context_tokens,
            tied_embeddings=model.tied_embeddings,
        )

    @classmethod
    def from_folder(cls, folder: str | Path) -> DecoderConfig:
        """The shape in a Hugging Face folder's config.json; what this decoder cannot run raises InputError."""
        path = Path(folder) / "config.json"
        plain = read_json_object(path, fix="give a Hugging Face folder")
        try:
            config = _from_hugging_face(Path(folder).resolve().name, plain)
        except InputError as error:
            raise error.located(path) from None
        generation = Path(folder) / "generation_config.json"
        if not generation.exists():
            return config
        try:
            return replace(
                config,
                end_tokens=config.end_tokens
                | _end_tokens(read_json_object(generation, fix="give a Hugging Face folder")),
            )
        except InputError as error:
            raise error.located(generation) from None


def _end_tokens(plain: Mapping[str, Any]) -> frozenset[int]:
    """Ids that end a text; chat models name some of theirs only in generation_config.json."""
    end = plain.get("eos_token_id")
    tokens = end if isinstance(end, list) else [] if end is None else [end]
    if not all(type(token) is int for token in tokens):
        raise InputError(f"eos_token_id is {end!r}", fix="give a token id or a list of them")
    return frozenset(tokens)


def _from_hugging_face(name: str, plain: Mapping[str, Any]) -> DecoderConfig:
    named = plain.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else named
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture {architecture} is not supported", fix=f"use {' or '.join(ARCHITECTURES)}")
    for key in ("attention_bias", "mlp_bias", "sliding_window", "quantization_config"):
        if plain.get(key):
            raise InputError(f"{key} is {plain[key]!r}", fix="this decoder runs models without it")
    if plain.get("hidden_act", "silu") != "silu":
        raise InputError(f"hidden_act is {plain['hidden_act']!r}", fix="this decoder runs silu")
    mixture = architecture == "MixtralForCausalLM"
    rope = plain.get("rope_parameters") or plain.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise InputError(f"the rope parameters are {rope!r}", fix="give an object")
    try:
        return DecoderConfig(
            name=name,
            layers=plain["num_hidden_layers"],
            hidden=plain["hidden_size"],
            heads=plain["num_attention_heads"],
            kv_heads=plain.get("num_key_value_heads") or plain["num_attention_heads"],
            head_size=plain.get("head_dim") or plain["hidden_size"] // plain["num_attention_heads"],
            intermediate=plain["intermediate_size"],
            vocabulary=plain["vocab_size"],
            experts=plain["num_local_experts"] if mixture else 0,
            experts_per_token=plain["num_experts_per_tok"] if mixture else 0,
            norm_eps=float(plain["rms_norm_eps"]),
            rope_theta=float(rope.get("rope_theta") or plain.get("rope_theta") or 10_000.0),
            rope_scaling=_rope_scaling(rope),
            max_context_tokens=plain["max_position_embeddings"],
            tied_embeddings=bool(plain.get("tie_word_embeddings", False)),
            end_tokens=_end_tokens(plain),
        )
    except KeyError as error:
        raise InputError(f"{error.args[0]} is missing", fix="give the model's complete config.json") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"a value has the wrong type: {error}") from None


def _rope_scaling(rope: Mapping[str, Any]) -> Llama3RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise InputError(f"rope scaling {kind!r} is not supported", fix="use default or llama3")
    return Llama3RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_context_tokens=int(rope["original_max_position_embeddings"]),
    )
