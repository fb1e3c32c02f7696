"""A model by its config.json, as the Hugging Face Hub holds it: parameters counted from the shapes of its layers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from melange.catalog.checkpoint import checkpoint_precision
from melange.catalog.config_values import ConfigValues
from melange.catalog.hardware import Catalog, figures_of
from melange.catalog.layers import Layers, layers_of
from melange.catalog.models import Model
from melange.catalog.parameters import Attention, Linear, Mlps, attention_of, linear_of, mlps_of, window_of
from melange.errors import InputError
from melange.files.text import read_json_object

_NO_DECODER = (
    "bert", "roberta", "xlm-roberta", "distilbert", "electra", "deberta-v2", "vit", "wav2vec2", "modernbert", "t5",
    "bart", "whisper", "clip", "siglip", "mamba", "mamba2", "rwkv",
)  # fmt: skip
# Architectures whose layers are told otherwise than by the keys read here.
_OTHER_LAYERS = ("gpt2", "opt", "bloom", "falcon", "mpt", "gptj", "codegen", "dbrx", "nemotron-nas", "deepseek_v4")
_TIED = ("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n_text", "gemma4_text", "cohere", "cohere2")
# What a class of transformers assumes and some of its published files leave out.
_ASSUMED: Mapping[str, Mapping[str, int]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
}
_OUTER = ("quantization_config", "compression_config", "dtype", "torch_dtype", "_name_or_path", "tie_word_embeddings")


def model_from_config(file: str | os.PathLike[str]) -> Model:
    """A model from a Hugging Face ``config.json`` of a decoder.

    Covered are dense models and mixtures (shared experts, dense layers in between), grouped, gated and latent
    attention, windows, chunks, linear attention and state spaces. Parameters are counted from the shapes: attention,
    MLP matrices, routers, norms, embeddings; a part for images or sound is not (``unread`` names it). The name is the
    file's ``_name_or_path``, its folder's or, of a file called otherwise than config.json, its own. The precision is
    :func:`checkpoint_precision`. InputError for what is not covered.
    """
    config = _text_part(_quantisation_beside(file) | _json(file), file)
    try:
        kind = str(config.get("model_type") or "")
        _refuse_uncovered(kind, config)
        return _model({**_ASSUMED.get(kind, {}), **config}, kind, file)
    except InputError as error:
        raise error.located(file) from error
    except OverflowError as error:
        raise InputError("its sizes make a model beyond all numbers", file=file, fix="check its sizes") from error
    except KeyError as error:
        raise InputError(f"{error.args[0]} is missing", file=file, fix="give a decoder's config.json") from error


def model_named(name: str, catalog: Catalog, base: str | os.PathLike[str] = ".") -> tuple[Model, Path | None]:
    """The model of a catalog name, alias or Hugging Face id, or of a config.json (its path or its folder's).

    Beside it the file that describes it, None for the catalog's own. Paths are relative to the folder ``base``.
    InputError with the nearest names for anything else.
    """
    file = config_file(name, base)
    return (catalog.model(name), None) if file is None else (model_from_config(file), file)


def config_file(name: str, base: str | os.PathLike[str] = ".") -> Path | None:
    """The config.json that a model's name is the path of, written as such or a folder that holds one; else None."""
    path = Path(base) / Path(name).expanduser()
    if name.endswith(".json"):
        return path
    if (path / "config.json").is_file():
        return path / "config.json"
    return path / "config.json" if name.startswith((".", "/", "~")) else None


def model_shape(model: str | None) -> dict[str, Any] | None:
    """The figures of a model given as a folder with a ``config.json`` that is covered; None for anything else."""
    if model is None:
        return None
    try:
        found = model_from_config(Path(model) / "config.json")
    except InputError:
        return None
    return figures_of(found)


def _json(file: str | os.PathLike[str]) -> dict[str, Any]:
    return read_json_object(file, fix="give a Hugging Face config.json")


def _quantisation_beside(file: str | os.PathLike[str]) -> dict[str, Any]:
    """What ModelOpt says of the precision in a file of its own beside config.json, in the form that it has within."""
    path = Path(file)
    beside = path.parent / "hf_quant_config.json"
    if path.name != "config.json" or not beside.is_file():
        return {}
    stated = _json(beside).get("quantization")
    return {"quantization_config": {"quant_method": "modelopt", **stated}} if isinstance(stated, dict) else {}


def _text_part(config: dict[str, Any], file: str | os.PathLike[str]) -> dict[str, Any]:
    """The part that decodes text, of a model of several kinds of input; it tells its weights' precision beside it."""
    for name in ("text_config", "llm_config", "language_config"):
        part = config.get(name)
        if part is not None and not isinstance(part, dict):
            raise InputError(f"{name} is no set of keys", file=file, fix="give a Hugging Face config.json")
        if part:
            others = {key: value for key, value in config.items() if key.endswith("_config") and key != name}
            outer = {key: config[key] for key in _OUTER if config.get(key) is not None}
            return others | outer | {key: value for key, value in part.items() if value is not None or key not in outer}
    return config


def _refuse_uncovered(kind: str, config: Mapping[str, Any]) -> None:
    if kind in _NO_DECODER:
        raise InputError(f"model_type {kind!r} is no decoder", fix="give a decoder's config.json")
    if kind in _OTHER_LAYERS or config.get("compress_ratios"):
        raise InputError(f"the layers of model_type {kind!r} are not modelled", fix="give a Llama-like config.json")


def _model(plain: Mapping[str, Any], kind: str, file: str | os.PathLike[str]) -> Model:
    config = ConfigValues(plain)
    hidden, vocabulary = config.count("hidden_size", "n_embd", "d_model"), config.count("vocab_size")
    experts = config.count(
        "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts", default=1, least=0
    )
    config.pass_over(("num_local_experts", "num_experts"))
    experts = max(experts, 1)
    layers = layers_of(config, kind, experts)
    attention = attention_of(config, hidden)
    window, window_elements = window_of(config, hidden, attention)
    linear = linear_of(config, hidden) if layers.mixing("linear") else Linear()
    mlps = mlps_of(config, kind, hidden, layers, experts if layers.experts else 1)
    tied = bool(config.get("tie_word_embeddings", kind in _TIED))
    total, active = _counted(layers, attention, window, linear, mlps, vocabulary * hidden * (1 if tied else 2), hidden)
    context = config.count("max_position_embeddings", "max_sequence_length", "model_max_length", default=4096)
    path = Path(file)
    own = path.resolve().parent.name if path.name == "config.json" else path.stem
    latent = attention.latent_elements
    return Model(
        name=str(config.get("_name_or_path") or own or path.stem),
        parameters=total,
        active_parameters=active,
        layers=len(layers.mixers),
        hidden=hidden,
        heads=attention.heads,
        kv_heads=attention.kv_heads,
        head_size=attention.head_size,
        value_head_size=attention.value_size if attention.value_size != attention.head_size else 0,
        intermediate=mlps.intermediate,
        vocabulary=vocabulary,
        experts=mlps.experts,
        experts_per_token=mlps.experts_per_token,
        expert_layers=layers.experts if 0 < layers.experts < len(layers.mlps) else 0,
        window_layers=layers.mixing("window") if layers.window_tokens < context else 0,
        window_tokens=layers.window_tokens if layers.window_tokens < context else 0,
        window_kv_elements=window_elements if layers.mixing("window") else 0.0,
        linear_layers=layers.mixing("linear"),
        state_bytes=linear.state_bytes * layers.mixing("linear"),
        plain_layers=layers.mixing("none"),
        kv_latent_elements=latent,
        attended_tokens=attention.attended_tokens,
        max_context_tokens=context,
        tied_embeddings=tied,
        precision=checkpoint_precision(plain),
        unread=config.unread,
        source=os.fspath(file),
    )


def _counted(
    layers: Layers, full: Attention, window: float, linear: Linear, mlps: Mlps, embeddings: int, hidden: int
) -> tuple[float, float]:
    """(parameters, those that one token uses)."""
    mixing = (
        layers.mixing("full") * full.parameters
        + layers.mixing("window") * window
        + layers.mixing("linear") * linear.parameters
    )
    common = mixing + layers.dense * mlps.dense + layers.experts * mlps.shared
    common += 2.0 * hidden * len(layers.mixers) + hidden + embeddings
    return (
        float(common + layers.experts * mlps.experts * mlps.expert),
        float(common + layers.experts * mlps.experts_per_token * mlps.expert),
    )
