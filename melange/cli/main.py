"""The ``melange`` command: a group that imports a command only when it is used, and turns errors into one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from melange.cli.lazy import LazyGroup
from melange.errors import MelangeError
from melange.files.places import pipes_held
from melange.files.version import __version__

# name: (module:attribute, one line for the overview)
COMMANDS = {
    "solve": ("melange.cli.solve:solve", "Find the cheapest fleet for a workload."),
    "simulate": ("melange.cli.simulate:simulate", "Play requests through a plan and see who keeps the SLO."),
    "capacity": ("melange.cli.capacity:capacity", "Find the highest rate that given machines carry."),
    "sweep": ("melange.cli.sweep:sweep", "Solve over a range of rates, SLOs or prices."),
    "gpus": ("melange.cli.gpus:gpus", "List GPUs, models, and what renting them costs."),
    "workload": ("melange.cli.workload:workload", "Make workload files from traces or metrics, or show one."),
    "profile": ("melange.cli.profile:profile", "Measure a GPU or a running server under load."),
    "estimate": ("melange.cli.estimate:estimate", "Estimate rates of GPUs that nobody measured."),
    "calibrate": ("melange.cli.calibrate:calibrate", "Fit the performance model to measurements."),
    "limits": ("melange.cli.limits:limits", "Hold measurements against what the hardware allows."),
    "schema": ("melange.cli.schema:schema", "Print the JSON Schema of a file format."),
    "nanoflow": ("melange.cli.nanoflow:nanoflow", "Overlap compute, memory and network inside one GPU."),
    "aibrix": ("melange.cli.aibrix:aibrix", "Exchange profiles with AIBrix."),
}


LONGEST_MESSAGE = 2000  # characters: messages repeat what was given, which may be megabytes
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


@click.command(
    cls=LazyGroup, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="melange")
def melange() -> None:
    """Find the cheapest fleet of GPUs that serves an LLM workload within a stated latency promise.

    \b
    Examples:
      melange solve arena-120ms
      melange workload from-trace requests.csv --rate 8 --slo-tpot-ms 120 --tpot-definition decode -o workload.yaml
      melange gpus

    Exit codes: 0 fine, 1 failed, 2 bad usage or input, 3 no fleet can do it, 4 time ran out before any was found.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; every error is one line on stderr."""
    try:
        _run(arguments)
    except Exception as error:
        if not _from_interrupt(error):
            raise
        _fail("interrupted", 130)


def _run(arguments: Sequence[str] | None) -> NoReturn:
    try:
        with pipes_held():
            code = melange.main(args=arguments, prog_name="melange", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see '{context.command_path} --help'" if context is not None else ""
        _fail(" ".join(error.format_message().split()) + hint, 2)
    except MelangeError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UnicodeEncodeError as error:
        _fail(f"{error.object[error.start : error.end][:9]!r} is not Unicode text and cannot be written", 2)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _fail(f"{error.filename}: {(error.strerror or '').lower()}", 2)
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(f"cannot write the answer: {error.strerror}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _from_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C lies behind an error: a class that was just being made turns it into one of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _fail(message: str, code: int) -> NoReturn:
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[: LONGEST_MESSAGE // 2]} [...] {message[-LONGEST_MESSAGE // 2 :]}"
    click.echo(f"melange: {message}", err=True)
    sys.exit(code)
