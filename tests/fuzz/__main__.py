"""``PYTHONPATH=.:tests python -m fuzz``: mutated inputs at full size, kills, full disks and ill servers; see --help."""

from __future__ import annotations

import sys
import time

import click
from fuzz.chaos import Trial, trials
from fuzz.readers import targets


@click.command()
@click.option("--only", default="", metavar="TEXT", help="Only readers and commands whose name contains this.")
@click.option("--count", type=click.IntRange(1), default=2000, show_default=True, help="Mutations a reader.")
@click.option("--kills", type=click.IntRange(0), default=6, show_default=True, help="Kills, full disks, faults each.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first one's seed.")
@click.option("--verbose", is_flag=True, help="Print the whole of what went wrong.")
def fuzz(only: str, count: int, kills: int, seed: int, verbose: bool) -> None:
    """Mutate good files and options, kill long commands, fill the disk, measure ill servers; say what is not survived.

    \b
    Examples:
      python -m fuzz
      python -m fuzz --only 'kill solve' --kills 30
      python -m fuzz --only 'plan, simulated' --seed 17 --count 1 --verbose
    """
    tried: list[tuple[str, Trial, int]] = [(target.name, target.complaint, count) for target in targets()]
    tried += [(name, trial, min(count, kills)) for name, trial in trials().items()]
    ill = 0
    for name, trial, times in tried:
        if only not in name or not times:
            continue
        began_s = time.monotonic()
        failed = failures(trial, range(seed, seed + times))
        ill += len(failed)
        click.echo(f"{name:36} tried {times}, survived {times - len(failed)}, {time.monotonic() - began_s:.0f} s")
        for number, wrong in failed.items():
            click.echo(f"  seed {number}: {wrong if verbose else _short(wrong)}\n    {replay(name, number)}")
    sys.exit(1 if ill else 0)


def _short(wrong: str) -> str:
    lines = wrong.strip().splitlines()
    return lines[0][:300] if len(lines) == 1 else f"{lines[0][:150]} ... {lines[-1][:200]}"


def failures(trial: Trial, seeds: range) -> dict[int, str]:
    """What went wrong, by seed."""
    found = {number: trial(number) for number in seeds}
    return {number: wrong for number, wrong in found.items() if wrong is not None}


def replay(name: str, seed: int) -> str:
    """The command that tries one seed again."""
    return f"PYTHONPATH=.:tests python -m fuzz --only '{name}' --seed {seed} --count 1 --verbose"


if __name__ == "__main__":
    fuzz()
