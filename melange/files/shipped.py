"""Where the shipped profiles and workloads lie: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(relative: str) -> Path:
    """Path of a shipped file or folder, such as ``profiles/catalog/gpus.yaml``; it may not exist."""
    installed = _PACKAGE / "_data" / relative
    return installed if installed.exists() else _PACKAGE.parent / relative
