"""Tiny model folders for real engines: a Llama shape and a local tokenizer; weights by ``--load-format dummy``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """Shape of a model small enough for a CPU; ``vocabulary`` counts special, byte and filler tokens."""

    name: str
    hidden: int
    layers: int
    heads: int
    vocabulary: int
    intermediate: int
    max_context_tokens: int = 4096


TINY = TinyModel(name="tiny", hidden=256, layers=4, heads=4, vocabulary=8192, intermediate=1024)
MID = TinyModel(name="mid", hidden=1024, layers=12, heads=16, vocabulary=32000, intermediate=4096)


def write_tiny_model(folder: str | os.PathLike[str], model: TinyModel = TINY) -> Path:
    """Write ``config.json`` and a byte-level tokenizer into a folder, made where missing; returns its path.

    The tokenizer has the 256 byte tokens, no merges (one token a byte of text) and filler words up to the vocabulary.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("config.json", _config(model)),
        ("generation_config.json", {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}),
        ("tokenizer.json", _tokenizer(model.vocabulary)),
        ("tokenizer_config.json", _tokenizer_config(model)),
    ):
        (target / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return target


def _config(model: TinyModel) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.heads,
        "head_dim": model.hidden // model.heads,
        "intermediate_size": model.intermediate,
        "vocab_size": model.vocabulary,
        "max_position_embeddings": model.max_context_tokens,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


def _byte_characters() -> list[str]:
    """The printable stand-ins of the 256 bytes that byte-level tokenizers use (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = {byte: chr(byte) for byte in printable}
    spare = (chr(256 + n) for n in range(256))
    return [stand_ins.get(byte) or next(spare) for byte in range(256)]


def _tokenizer(vocabulary: int) -> dict[str, object]:
    tokens = [*SPECIAL_TOKENS, *_byte_characters()]
    tokens += [f"<filler{n}>" for n in range(vocabulary - len(tokens))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": n, "content": text, **added} for n, text in enumerate(SPECIAL_TOKENS)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: n for n, text in enumerate(tokens)},
            "merges": [],
        },
    }


def _tokenizer_config(model: TinyModel) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": model.max_context_tokens,
        "clean_up_tokenization_spaces": False,
    }
