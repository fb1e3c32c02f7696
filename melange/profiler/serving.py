"""Serving: what a running server is and understands, found out by asking it before anything is measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from melange.catalog.checkpoint import checkpoint_precision
from melange.catalog.hardware import load_catalog
from melange.errors import EngineError, InputError
from melange.measurements.file import KvCache
from melange.profiler.client import CompletionsClient, Dialect, Endpoint, PromptSource
from melange.profiler.engine import engine_version, kv_cache, served_models
from melange.profiler.load import RequestRecord, Size
from melange.serving.config import ConfigKey
from melange.serving.engine_args import kv_dtype_of, option_value, sequences_of, token_budget_of

PROBE = Size(32, 4)
PROBE_TIMEOUT_S = 120.0
DEFAULT_ENGINE = "vllm"  # which says no more than its version
QUANTIZED = {
    "nvfp4": "nvfp4", "modelopt_fp4": "nvfp4", "mxfp4": "mxfp4", "fp8": "fp8", "awq": "int4", "gptq": "int4",
    "int8": "int8", "bitsandbytes": "int4",
}  # fmt: skip
ARGUMENTS, ASSUMED = "engine arguments", "assumed"
DTYPES = {"float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float32": "fp32", "float": "fp32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A server that answers: where, in which dialect, which engine, and how long a request may be (tokens).

    ``kv_cache``: what its KV cache holds, see :func:`melange.profiler.engine.kv_cache`. ``tells_cached``: whether it
    says how many tokens of a repeated prompt it had in its prefix cache.
    """

    endpoint: Endpoint
    dialect: Dialect
    engine: str
    version: str | None
    max_model_len: int | None
    kv_cache: KvCache | None = None
    tells_cached: bool = False


def probe(endpoint: Endpoint) -> Serving:
    """Send single small requests until one is understood; raises EngineError with the server's last answer if none is.

    Token-id prompts and ``ignore_eos`` are tried first; a server that refuses them gets text, whose length in tokens
    is then learnt from its own ``usage``.
    """
    dialect = asyncio.run(_understood(endpoint))
    models = served_models(endpoint.url, endpoint.headers)
    engine, version = engine_version(endpoint.url, endpoint.headers)
    return Serving(
        endpoint=endpoint,
        dialect=dialect,
        engine=engine or DEFAULT_ENGINE,
        version=version,
        max_model_len=models.get(endpoint.model),
        kv_cache=kv_cache(endpoint.url, endpoint.headers),
        tells_cached=asyncio.run(_one(endpoint, dialect)).cached_tokens is not None,
    )


async def _understood(endpoint: Endpoint) -> Dialect:
    last = ""
    for token_ids, ignore_eos in ((True, True), (False, True), (True, False), (False, False)):
        dialect = Dialect(token_ids=token_ids, ignore_eos=ignore_eos)
        record = await _one(endpoint, dialect)
        if record.ok:
            return dialect if token_ids else await _words_per_token(endpoint, dialect)
        last = record.error or "no answer"
        if not last.startswith("HTTP 4"):
            break
    raise EngineError(f"{endpoint.completions_url} cannot be profiled: {last}")


async def _one(endpoint: Endpoint, dialect: Dialect) -> RequestRecord:
    prompt = PromptSource(PROBE, dialect, seed=0).next()
    async with CompletionsClient(endpoint, dialect=dialect, timeout_s=PROBE_TIMEOUT_S) as client:
        return await client.complete(prompt, PROBE, began_s=client.clock())


async def _words_per_token(endpoint: Endpoint, dialect: Dialect) -> Dialect:
    record = await _one(endpoint, dialect)
    if not record.ok or record.input_tokens < 1:
        raise EngineError(
            f"{endpoint.completions_url} cannot be profiled: {record.error or 'usage has no prompt tokens'}"
        )
    return replace(dialect, words_per_token=PROBE.input_tokens / record.input_tokens)


def server_key(
    model: str,
    *,
    gpu: str,
    engine: str,
    args: Sequence[str] = (),
    model_folder: Path | None = None,
    precision: str | None = None,
    tp: int | None = None,
) -> ConfigKey:
    """What a server's measurements are filed under.

    ``tp`` follows the engine's arguments unless given, ``precision`` is that of :func:`found_precision`; KV-cache
    dtype, token budget and sequences are the arguments'. ``gpu`` takes its catalog name where the catalog knows it.
    """
    degree = option_value(args, "--tensor-parallel-size", "-tp")
    if tp is None and degree is not None and not degree.isdigit():
        raise InputError(f"--tensor-parallel-size is {degree!r}", fix="give a whole number")
    return ConfigKey(
        model=model,
        gpu=catalog_name(gpu),
        tp=tp if tp is not None else int(degree or 1),
        precision=found_precision(model, args, model_folder, precision)[0],
        engine=engine,
        kv_dtype=kv_dtype_of(args),
        max_batched_tokens=token_budget_of(args),
        max_num_seqs=sequences_of(args),
    )


def catalog_name(gpu: str) -> str:
    """The catalog's name of a GPU that a driver calls otherwise (``NVIDIA L4``); an unknown one keeps its own."""
    for name in (gpu, gpu.removeprefix("NVIDIA ").removeprefix("Tesla ")):
        try:
            return load_catalog().gpu(name).name
        except InputError:
            continue
    return gpu


def found_precision(
    model: str, args: Sequence[str] = (), folder: Path | None = None, given: str | None = None
) -> tuple[str, str]:
    """Precision of the weights, and what says so: ``given``, the engine's arguments, the model's folder or its name.

    Nothing over the network tells an attached server's precision: where its model's name says nothing either, bf16
    is ``assumed``.
    """
    if given is not None:
        return given, "given"
    quantization, dtype = option_value(args, "--quantization", "-q"), option_value(args, "--dtype")
    if quantization is not None:
        return next((kind for name, kind in QUANTIZED.items() if quantization.startswith(name)), "fp8"), ARGUMENTS
    if dtype in DTYPES:
        return DTYPES[dtype], ARGUMENTS
    stored = None if folder is None else _folder_precision(folder)
    if stored is not None:
        return stored, "model folder"
    named = next((kind for name, kind in QUANTIZED.items() if name in model.lower()), None)
    return ("bf16", ASSUMED) if named is None else (named, "model name")


def _folder_precision(folder: Path) -> str | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    try:
        stated = isinstance(config, dict) and {"dtype", "torch_dtype", "quantization_config"} & set(config)
        return checkpoint_precision(config) if stated else None
    except InputError:
        return None


def serving_facts(serving: Serving, described: Mapping[str, object], date: str) -> dict[str, object]:
    """What a reader of the measurements may want to know of the server and of the client, JSON-ready."""
    from importlib import metadata

    return {
        "source": "measured",
        "date": date,
        "server": dict(described),
        "prompts": "token ids" if serving.dialect.token_ids else "text",
        "ignore_eos": serving.dialect.ignore_eos,
        "tells_cached_tokens": serving.tells_cached,
        "client": {"aiohttp": metadata.version("aiohttp")},
    }


def today(now_s: float | None = None) -> str:
    """ISO date, UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(now_s))
