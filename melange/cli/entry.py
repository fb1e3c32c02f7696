"""The installed command: what must hold before anything else is imported."""

from __future__ import annotations

import os
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; a closed descriptor, Ctrl-C while modules load, and libraries' warnings end in no noise."""
    closed = _closed_descriptors()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        from melange.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("melange: interrupted\n")
        raise SystemExit(130) from None
    if 1 in closed:
        sys.stderr.write("melange: standard output is closed, so there is nowhere to answer\n")
        raise SystemExit(1)
    run()


def _closed_descriptors() -> list[int]:
    """The standard descriptors that are closed, each now held by the null device, lest a file of ours takes it."""
    closed = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            closed.append(number)
    if 2 in closed:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for the life of the process
    return closed
