"""``PYTHONPATH=.:tests python -m fuzz``: mutated inputs at full size, kills and faults; see --help."""

from __future__ import annotations

import sys
import time

import click
from fuzz.readers import Target, targets


@click.command()
@click.option("--only", default="", metavar="TEXT", help="Only readers whose name contains this.")
@click.option("--count", type=click.IntRange(1), default=2000, show_default=True, help="Mutations a reader.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first mutation's seed.")
@click.option("--verbose", is_flag=True, help="Print the whole of what went wrong.")
def fuzz(only: str, count: int, seed: int, verbose: bool) -> None:
    """Mutate good files and options, run the commands that read them, and say what they did not survive.

    \b
    Examples:
      python -m fuzz
      python -m fuzz --only 'plan, simulated' --seed 17 --count 1 --verbose
    """
    ill = 0
    for target in (one for one in targets() if only in one.name):
        began_s = time.monotonic()
        failed = failures(target, range(seed, seed + count))
        ill += len(failed)
        click.echo(
            f"{target.name:40} tried {count}, survived {count - len(failed)}, {time.monotonic() - began_s:.0f} s"
        )
        for number, wrong in failed.items():
            lines = wrong.strip().splitlines()
            shown = (
                wrong if verbose else f"{lines[0][:150]} ... {lines[-1][:200]}" if len(lines) > 1 else lines[0][:300]
            )
            click.echo(f"  seed {number}: {shown}\n    {replay(target, number)}")
    sys.exit(1 if ill else 0)


def failures(target: Target, seeds: range) -> dict[int, str]:
    """What went wrong, by seed."""
    found = {number: target.complaint(number) for number in seeds}
    return {number: wrong for number, wrong in found.items() if wrong is not None}


def replay(target: Target, seed: int) -> str:
    """The command that tries one mutation again."""
    return f"PYTHONPATH=.:tests python -m fuzz --only '{target.name}' --seed {seed} --count 1 --verbose"


if __name__ == "__main__":
    fuzz()
