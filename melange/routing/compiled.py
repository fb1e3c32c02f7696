"""compiled: numba's compiler where it is installed, plain Python where it is not.

Code marked with it keeps to arrays, records, named tuples and numbers, so that both run the same source and give the
same bytes; ``NUMBA_DISABLE_JIT=1`` asks for plain Python where numba is installed.

Compiled code is kept on disk under a name made from the sources: numba itself looks only at a function's own file, and
would go on using code that calls the old version of a function in another one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

try:
    numba: Any = import_module("numba")
except ImportError:
    numba = None

IS_COMPILED = numba is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function, compiled at its first call and kept on disk after that."""
    return _compile(function, {})


def compiled_part(function: Function) -> Function:
    """A function that only other compiled ones call: without the wrappers for Python, which take long to compile."""
    return _compile(function, {"no_cpython_wrapper": True, "no_cfunc_wrapper": True})


def _compile(function: Function, options: dict[str, bool]) -> Function:
    if numba is None or not IS_COMPILED:
        return function
    before = numba.config.CACHE_DIR
    folder = _cache_folder()
    try:
        numba.config.CACHE_DIR = folder or ""
        return cast(
            "Function", numba.njit(cache=folder is not None, error_model="numpy", nogil=True, **options)(function)
        )
    finally:
        numba.config.CACHE_DIR = before


@cache
def _cache_folder() -> str | None:
    """Where compiled code of exactly these sources is kept; None where the user's cache folder cannot be written."""
    package = Path(__file__).parents[1]
    sources = sorted([*package.glob("routing/*.py"), *package.glob("simulator/*.py")])
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    root = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(root) / "melange" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder) if os.access(folder, os.W_OK) else None
