"""GPUs and models that the catalog does not know: a GPU given by its figures, a model by its config.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from melange.catalog.hardware import Catalog, Gpu, Model, Precision, figures_of
from melange.errors import InputError
from melange.files.documents import Document, read_document
from melange.files.text import read_text

# They share Llama's keys and would be miscounted: two matrices an MLP instead of three, or no KV cache.
_TWO_MATRIX_MLP = ("gpt_neox", "gpt_neox_japanese", "phi", "starcoder2", "persimmon", "nemotron", "opt", "falcon")
_NO_DECODER = ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "deberta-v2", "vit", "wav2vec2", "modernbert")
# Key of a mixture with shared experts or dense layers in between -> the value that means there are none.
_PARTLY_SPARSE: Mapping[str, object] = {
    "n_routed_experts": 0,
    "n_shared_experts": 0,
    "shared_expert_intermediate_size": 0,
    "first_k_dense_replace": 0,
    "decoder_sparse_step": 1,
    "interleave_moe_layer_step": 1,
    "mlp_only_layers": [],
}
_DTYPES: Mapping[str, Precision] = {
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float": "fp32",
}
_BITS: Mapping[int, Precision] = {4: "int4", 8: "int8"}
_TEXTS = ("interconnect", "vendor", "source")


def extended_catalog(
    catalog: Catalog,
    gpu_files: Iterable[str | os.PathLike[str]] = (),
    model_configs: Iterable[str | os.PathLike[str]] = (),
) -> Catalog:
    """The catalog with the described GPUs and models added; a described one replaces its namesake."""
    gpus, models = dict(catalog.gpus), dict(catalog.models)
    for file in gpu_files:
        gpus |= {gpu.name: gpu for gpu in read_gpus(file)}
    for file in model_configs:
        model = model_from_config(file)
        models[model.name] = model
    return Catalog(gpus=gpus, models=models)


def read_gpus(file: str | os.PathLike[str]) -> tuple[Gpu, ...]:
    """GPUs from a YAML file shaped like the catalog's: ``gpus: {NAME: {memory_gib: ..., bandwidth_gb_s: ..., ...}}``.

    Unknown or missing figures, and impossible ones, raise InputError with the line.
    """
    document = read_document(file)
    rows = document.data.get("gpus")
    if not isinstance(rows, Mapping) or not rows:
        raise document.error(("gpus",), "it describes no GPUs", "write 'gpus:' with one entry per GPU")
    known = {item.name: item.default is MISSING and item.default_factory is MISSING for item in fields(Gpu)}
    result = []
    for name, row in rows.items():
        if not isinstance(row, Mapping):
            raise document.error(("gpus", name), f"GPU {name} is not a mapping of figures")
        for key in row:
            if key not in known or key == "name":
                allowed = ", ".join(set(known) - {"name"})
                raise document.error(("gpus", name, key), f"GPU {name}: unknown figure {key!r}", f"use {allowed}")
        for key, required in known.items():
            if required and key != "name" and key not in row:
                raise document.error(("gpus", name), f"GPU {name}: {key} is missing", "give it")
        _check_kinds(document, str(name), row)
        try:
            figures: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
            result.append(Gpu(name=str(name), **figures))
        except InputError as error:
            raise document.error(("gpus", name), error.problem, error.fix) from error
    return tuple(result)


def _check_kinds(document: Document, name: str, row: Mapping[str, Any]) -> None:
    """Raise, at its line, for a figure that is no number or a name that is no text."""
    for key, value in row.items():
        numbers = list(value.values()) if key == "tflops" and isinstance(value, Mapping) else [value]
        if key in _TEXTS:
            good, wanted = isinstance(value, str), "a text"
        elif key == "aliases":
            good, wanted = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of names"
        else:
            good = all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)
            wanted = "rates by precision, such as {fp16: 300}" if key == "tflops" else "a number"
            good = good and (key != "tflops" or isinstance(value, Mapping))
        if not good:
            raise document.error(("gpus", name, key), f"GPU {name}: {key} is not {wanted}", f"give {wanted}")


def model_from_config(file: str | os.PathLike[str]) -> Model:
    """A model from a Hugging Face ``config.json`` of a Llama-like decoder, dense or mixture of experts.

    Parameters are counted from the shapes: attention, three MLP matrices per expert, router, norms, embeddings. The
    name is the file's ``_name_or_path``, its folder's or, of a file called otherwise than config.json, its own. The
    precision is :func:`checkpoint_precision`. Architectures that the counting does not cover are refused.
    """
    try:
        config = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", file=file, line=error.lineno, column=error.colno) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless nesting
        raise InputError("it is not a model configuration", file=file, fix="give a Hugging Face config.json") from error
    if isinstance(config, dict) and isinstance(config.get("text_config"), dict):
        # A model of several kinds of input tells its weights' precision once, beside its parts.
        stored = {key: config[key] for key in ("quantization_config", "dtype", "torch_dtype") if key in config}
        config = stored | config["text_config"]
    if not isinstance(config, dict):
        raise InputError("it is not a model configuration", file=file, fix="give a Hugging Face config.json")
    try:
        _refuse_uncovered(config)
        return _model(config, file)
    except InputError as error:
        raise error.located(file) from error
    except OverflowError as error:
        raise InputError("its sizes make a model beyond all numbers", file=file, fix="check its sizes") from error
    except KeyError as error:
        raise InputError(f"{error.args[0]} is missing", file=file, fix="give a Llama-like config.json") from error


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


def checkpoint_precision(config: Mapping[str, Any]) -> Precision:
    """What a config.json says that its weights are stored in: its ``quantization_config``, else its ``dtype``.

    Without either, fp16. A kind of quantisation that is not modelled raises InputError.
    """
    quantised = config.get("quantization_config")
    if not isinstance(quantised, Mapping):
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "float16").removeprefix("torch.")
        if dtype not in _DTYPES:
            raise InputError(f"its dtype is {dtype!r}", fix=f"known: {', '.join(_DTYPES)}")
        return _DTYPES[dtype]
    method = str(quantised.get("quant_method") or quantised.get("quant_algo") or "").lower()
    text = json.dumps(quantised)
    if method == "fp8" or (method in ("fbgemm_fp8", "modelopt") and "FP4" not in text.upper()):
        return "fp8"
    if method == "bitsandbytes":
        return "int8" if quantised.get("load_in_8bit") else "int4"
    bits = quantised.get("bits", quantised.get("w_bit"))
    if method == "compressed-tensors":
        weights = [row.get("weights") or {} for row in (quantised.get("config_groups") or {}).values()]
        kinds = {(row.get("type"), row.get("num_bits")) for row in weights}
        if kinds == {("float", 8)}:
            return "fp8"
        bits = next(iter(kinds))[1] if len(kinds) == 1 and all(kind == "int" for kind, _ in kinds) else None
    if bits not in (4, 8):
        raise InputError(
            f"its quantization_config ({method or 'no method'}) is not modelled",
            fix="give the config.json of the model it was made from, and say --precision",
        )
    return _BITS[bits]


def model_shape(model: str | None) -> dict[str, Any] | None:
    """The figures of a model given as a folder with a ``config.json`` that is covered; None for anything else."""
    if model is None:
        return None
    try:
        found = model_from_config(Path(model) / "config.json")
    except InputError:
        return None
    return figures_of(found)


def _refuse_uncovered(config: Mapping[str, Any]) -> None:
    """Raise for shapes that the counting would get wrong without noticing."""
    if config.get("kv_lora_rank"):
        raise InputError("its multi-head latent attention is not modelled", fix="give a model with plain KV heads")
    kind = config.get("model_type")
    if kind in _TWO_MATRIX_MLP or kind in _NO_DECODER:
        why = "has no gated MLP" if kind in _TWO_MATRIX_MLP else "is no decoder"
        raise InputError(f"model_type {kind!r} {why}", fix="give a Llama-like config.json")
    for key, plain in _PARTLY_SPARSE.items():
        if config.get(key, plain) not in (plain, None):
            raise InputError(
                f"{key} is {config[key]!r}: shared experts and layers that differ are not modelled",
                fix="give a model whose layers are alike, all dense or all of routed experts",
            )


def _model(config: Mapping[str, Any], file: str | os.PathLike[str]) -> Model:
    layers, hidden, heads = (_count(config, key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    vocabulary = _count(config, "vocab_size")
    kv_heads = _count(config, "num_key_value_heads", heads)
    head_size = _count(config, "head_dim", hidden // heads)
    experts = _count(config, "num_local_experts", _count(config, "num_experts", 1))
    intermediate = _count(config, "moe_intermediate_size") if "moe_intermediate_size" in config and experts > 1 else 0
    intermediate = intermediate or _count(config, "intermediate_size")
    tied = bool(config.get("tie_word_embeddings", False))
    attention = hidden * head_size * (2 * heads + 2 * kv_heads)
    expert = 3 * hidden * intermediate
    router = hidden * experts if experts > 1 else 0
    shared = layers * (attention + router + 2 * hidden) + hidden + vocabulary * hidden * (1 if tied else 2)
    per_token = _count(config, "num_experts_per_tok", 1) if experts > 1 else 1
    path = Path(file)
    own = path.resolve().parent.name if path.name == "config.json" else path.stem
    return Model(
        name=str(config.get("_name_or_path") or own or path.stem),
        parameters=float(shared + layers * experts * expert),
        active_parameters=float(shared + layers * per_token * expert),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        intermediate=intermediate,
        vocabulary=vocabulary,
        experts=experts,
        experts_per_token=per_token,
        max_context_tokens=_count(config, "max_position_embeddings", 4096),
        tied_embeddings=tied,
        precision=checkpoint_precision(config),
        source=os.fspath(file),
    )


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        if default is None:
            raise KeyError(key)
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{key} is {value!r}", fix="give a positive whole number")
    return value
