"""Where the shipped profiles and workloads lie: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(relative: str) -> Path:
    """Path of a shipped file or folder, such as ``profiles/catalog/gpus.yaml``; it may not exist."""
    installed = _PACKAGE / "_data" / relative
    return installed if installed.exists() else _PACKAGE.parent / relative


def shipped_yaml(name: str) -> dict[str, Any]:
    """The content of a YAML file that ships, which is known to be sound."""
    content: dict[str, Any] = yaml.load(data_path(name).read_text(encoding="utf-8"), yaml.CSafeLoader)
    return content
