"""One seam for independent jobs: the same answers, in order, however many run at a time and wherever they do."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from types import MappingProxyType, SimpleNamespace

import pytest

from melange import parallel
from melange.errors import InputError, MelangeError, MissingExtraError

HOW = [{}, {"jobs": 3, "threads": True}, {"jobs": 2}]


def squared(number: int) -> int:
    if number == 7:
        raise InputError("seven", fix="take another")
    return number * number


@pytest.mark.parametrize("how", HOW)
def test_results_and_progress_come_in_the_order_of_the_arguments(how):
    told: list[tuple[int, int]] = []
    found = parallel.run(squared, [(n,) for n in (3, 1, 2)], progress=lambda *now: told.append(now), **how)
    assert found == [9, 1, 4]
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("how", HOW)
def test_the_first_failure_is_raised_as_it_was(how):
    with pytest.raises(InputError, match="seven; take another") as caught:
        parallel.run(squared, [(1,), (7,), (2,)], **how)
    assert caught.value.fix == "take another"


def test_after_a_failure_nothing_new_begins():
    begun, released = [], threading.Event()

    def job(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise InputError("the first", fix="stop")
        released.wait(0.2)

    with pytest.raises(InputError, match="the first"):
        parallel.run(job, [(n,) for n in range(100)], jobs=2, threads=True)
    assert len(begun) < 100


def killed(number: int) -> None:
    os._exit(number)


def test_a_process_that_is_killed_is_one_clear_line():
    with pytest.raises(MelangeError, match="a process ended amid its job") as caught:
        parallel.run(killed, [(9,), (9,)], jobs=2)
    assert "\n" not in str(caught.value)


def test_no_jobs_and_fewer_than_one():
    assert parallel.run(squared, [], jobs=4) == []
    with pytest.raises(InputError, match="jobs is 0"):
        parallel.run(squared, [(1,)], jobs=0)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"'\.\[cluster\]'"), parallel.on_ray():
        pass


class TaskError(Exception):
    def __init__(self, cause):
        self.cause = cause


class Cluster:
    """As much of Ray as jobs see: values are put, functions called with what was put, errors wrapped."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=ConnectionError)

    def __init__(self):
        self.puts, self.cancelled = [], []

    def put(self, value):
        self.puts.append(value)
        return ("ref", value)

    def remote(self, num_cpus):
        return lambda function: SimpleNamespace(remote=lambda *row: (function, row))

    def get(self, future):
        function, row = future
        try:
            return function(*(value[1] if isinstance(value, tuple) and value[0] == "ref" else value for value in row))
        except InputError as error:
            raise TaskError(error) from error

    def cancel(self, future, force):
        self.cancelled.append(future)


@pytest.fixture
def cluster():
    token = parallel._ray.set(found := Cluster())
    yield found
    parallel._ray.reset(token)


def added(values, number):
    return sum(values) + number


def test_a_cluster_gets_what_jobs_share_once(cluster):
    shared, told = [1, 2], []
    found = parallel.run(added, [(shared, n) for n in range(3)], progress=lambda *now: told.append(now))
    assert found == [3, 4, 5]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [value for value in cluster.puts if isinstance(value, list)] == [shared]


def test_a_failure_on_a_cluster_is_raised_as_it_was_and_ends_the_rest(cluster):
    with pytest.raises(InputError, match="seven; take another"):
        parallel.run(squared, [(1,), (7,), (2,)])
    assert len(cluster.cancelled) == 2


def test_read_only_views_travel():
    view = MappingProxyType({"a": 1})
    again = pickle.loads(pickle.dumps(view))
    assert again == view
    assert isinstance(again, MappingProxyType)


def test_processes_end_with_the_one_that_started_them_however_that_ends(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from melange import parallel\n"
        "def job(number):\n"
        "    (Path(sys.argv[1]) / str(os.getpid())).touch()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    parallel.run(job, [(n,) for n in range(9)], jobs=2)\n"
    )
    marks = tmp_path / "marks"
    marks.mkdir()
    with subprocess.Popen([sys.executable, str(script), str(marks)]) as running:
        while len(list(marks.iterdir())) < 2 and running.poll() is None:
            time.sleep(0.05)
        running.kill()
    workers = [int(mark.name) for mark in marks.iterdir()]
    assert len(workers) == 2
    while any(is_running(worker) for worker in workers):  # a test that hangs is ended by its own time limit
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_interrupted_amid_processes_says_so_once(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "from melange import parallel\n"
        "def job(number):\n"
        "    (Path(sys.argv[1]) / str(number)).touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup ignores it\n"
        "    try:\n"
        "        parallel.run(job, [(n,) for n in range(9)], jobs=2)\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit('interrupted')\n"
    )
    command = [sys.executable, str(script), str(marks)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0) as running:
        while len(list(marks.iterdir())) < 2 and running.poll() is None:
            time.sleep(0.05)
        assert os.getpgid(running.pid) == running.pid != os.getpgrp()
        os.killpg(running.pid, signal.SIGINT)  # What a terminal does on Ctrl-C: the signal goes to the whole group.
        _, said = running.communicate()
    assert (running.returncode, said.strip()) == (1, "interrupted")
    assert len(list(marks.iterdir())) == 2
