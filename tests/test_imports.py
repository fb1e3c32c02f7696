"""The flow of imports: values at the bottom, computations above, the command line on top; never back."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import melange

PACKAGE = Path(melange.__file__).parent

# From the bottom up: each may import itself and what stands above it in this list.
ORDER = [
    "errors",
    "arrays",
    "slo",
    "parallel",
    "files",
    "traces",
    "solver",
    "catalog",
    "workload",
    "serving",
    "measurements",
    "capacity",
    "plan",
    "perfmodel",
    "nanoflow",
    "planning",
    "routing",
    "profiler",
    "simulator",
    "interop",
    "attainment",
    "analysis",
    "report",
    "testing",
    "cli",
    "__main__",
]
LEVEL = {name: level for level, name in enumerate(["melange", *ORDER])}
HEAVY = (
    "torch", "vllm", "pulp", "highspy", "pandas", "scipy", "numba", "aiohttp", "matplotlib", "rich", "pyarrow",
    "gpuhunt",
)  # fmt: skip


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "melange":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {_module(alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("melange.")}
    return found


def _module(name: str) -> str:
    return name if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir() else "melange"


# The face imports everything, for type checkers only (tests/test_face.py).
FILES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"})


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_follow_the_flow(file):
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    own = parts[0]
    assert own in LEVEL, f"say in ORDER where {own} belongs"
    for name in imports_of(file) - {"_data"}:
        assert LEVEL[name] <= LEVEL[own], f"{own} imports {name}, which comes after it"


def test_importing_melange_is_light():
    code = f"import sys, melange, melange.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
