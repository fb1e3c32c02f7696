"""The same answers, to the byte, from a real Ray cluster on this machine."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("ray", reason="needs the extra 'cluster'")

pytestmark = pytest.mark.e2e

START_S, ANSWER_S = 180, 300
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
# The cluster ends with the process that started it, and that one when its input does. Ray takes 127.0.0.1 for a wish
# to be reached from elsewhere; this address is the loopback's too.
CLUSTER = """
import sys, ray
context = ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.2", object_store_memory=200_000_000)
print("address", context.address_info["address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where a cluster of this machine alone listens."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], env=os.environ | TOKEN, text=True, **pipes) as cluster:
        assert cluster.stdout is not None
        watchdog = threading.Timer(START_S, cluster.kill)
        watchdog.start()
        found = next((line.split()[1] for line in cluster.stdout if line.startswith("address")), None)
        watchdog.cancel()
        if found is None:
            pytest.skip("no Ray cluster starts on this machine")
        yield found


def melange(*arguments: str, address: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if address is not None:
        environment |= TOKEN | {"RAY_ADDRESS": address}
    command = [sys.executable, "-m", "melange", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=ANSWER_S)


@pytest.mark.parametrize(
    "arguments",
    [
        ("sweep", "arena-120ms", "--rates", "1,2,4", "-o", "json"),
        ("solve", "arena-120ms", "--uncertainty", "20", "-o", "json"),
        ("solve", "arena-120ms", "--rate", "1", "--attain", "0.99", "--requests", "500", "-o", "json"),
    ],
    ids=["sweep", "uncertainty", "attain"],
)
def test_a_cluster_answers_as_this_machine_does(arguments, address):
    here, there = melange(*arguments), melange(*arguments, "--on", "ray", address=address)
    assert here.returncode == there.returncode, here.stderr + there.stderr
    assert here.returncode in (0, 4)
    assert there.stdout == here.stdout


def test_simulations_on_a_cluster(address, tmp_path):
    plan = str(tmp_path / "plan.json")
    assert melange("solve", "arena-120ms", "--plan", plan).returncode == 0
    arguments = ("simulate", plan, "--requests", "500", "-o", "json")
    here, there = melange(*arguments), melange(*arguments, "--on", "ray", address=address)
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout


def test_what_fails_there_is_said_as_here(address):
    arguments = ("solve", "arena-120ms", "--uncertainty", "20", "--max", "L4=0", "--only", "L4")
    here, there = melange(*arguments), melange(*arguments, "--on", "ray", address=address)
    assert (there.returncode, there.stderr) == (here.returncode, here.stderr)


def test_without_a_cluster_one_line_says_so():
    alone = melange("sweep", "arena-120ms", "--rates", "1,2", "--on", "ray", address="127.0.0.1:1")
    assert alone.returncode == 2
    assert alone.stdout == ""
    assert "no Ray cluster can be used" in alone.stderr.splitlines()[-1]
    assert "Traceback" not in alone.stderr
