"""Placement: the device, the number format and the tensor-parallel share of one process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from melange.errors import InputError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and how one process keeps its tensors: the ``rank``-th of ``tp`` shares, in ``dtype`` on ``device``."""

    dtype: torch.dtype
    device: torch.device
    rank: int = 0
    tp: int = 1


def usable_device(name: str, rank: int = 0) -> torch.device:
    """The CPU, or the ``rank``-th CUDA device; a machine without it raises InputError."""
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise InputError(f"device is {name!r}", fix="use cpu or cuda")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found <= rank:
        raise InputError(f"CUDA device {rank} was asked for, {found} found", fix="use a machine with NVIDIA GPUs")
    return torch.device("cuda", rank)
