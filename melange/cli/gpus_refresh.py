"""``melange gpus refresh``: a price file of what GPUs cost today."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import click

from melange.cli.options import names, waiting, warning
from melange.cli.outputs import OutputOption

if TYPE_CHECKING:
    from melange.interop.listings import Listing, PriceList

MOST_NAMED = 5
LONGEST_NAME = 40


def _day(ctx: click.Context, param: click.Parameter, value: str | None) -> date | None:
    try:
        day = None if value is None else date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a day such as 2026-11-27", ctx, param) from None
    if day is not None and day > datetime.now(UTC).date():
        raise click.BadParameter(f"{value} is yet to come", ctx, param)
    return day


@click.command()
@click.option("--catalog", metavar="PLACE", help="Read a copy of gpuhunt's catalog: a zip, or a folder of CSV files.")
@click.option(
    "--read-on", callback=_day, metavar="DAY", help="The day of the copy's prices  [default: its files' in a zip]."
)
@click.option("--gpu", "gpu_names", multiple=True, callback=names, metavar="NAMES", help="Only these GPUs.")
@click.option("--provider", "providers", multiple=True, callback=names, metavar="NAMES", help="Only these providers.")
@click.option(
    "-o", "--output", cls=OutputOption, type=click.Path(dir_okay=False), help="File to write, in place of stdout."
)
def refresh(
    catalog: str | None,
    read_on: date | None,
    gpu_names: tuple[str, ...],
    providers: tuple[str, ...],
    output: str | None,
) -> None:
    """Fetch what providers ask for GPUs today, and write a price file for --prices or a workload's prices.

    The offers are those that the package gpuhunt publishes (extra 'prices'), on demand and spot, dated by the day they
    were collected. GPUs that 'melange gpus' does not know are left out and counted.

    \b
    Examples:
      melange gpus refresh -o prices.csv
      melange gpus refresh --gpu L40S,H100 --provider aws,runpod -o prices.csv
      melange gpus refresh --catalog catalog/ --read-on 2026-11-27 -o prices.csv
    """
    from melange.catalog.hardware import load_catalog
    from melange.catalog.price_rows import price_file
    from melange.errors import InputError
    from melange.files.text import write_atomic
    from melange.interop.gpuhunt import our_provider
    from melange.interop.listings import price_list

    known = load_catalog()
    for name in gpu_names:
        known.gpu(name)
    if output is not None and catalog is not None and _is_inside(output, catalog):
        raise InputError("the command reads every CSV file of its folder", file=output, fix="name another folder")
    found = price_list(
        _listings(catalog, read_on), known, gpus=gpu_names, providers=[our_provider(name) for name in providers]
    )
    if not found.rows:
        raise InputError("no offer is left", file=catalog, fix="ask for more GPUs or providers")
    if output is None:
        click.echo(price_file(found.rows), nl=False)
    else:
        write_atomic(output, price_file(found.rows))
    _summarise(found)


def _is_inside(file: str, folder: str) -> bool:
    return os.path.isdir(folder) and os.path.realpath(os.path.dirname(file)) == os.path.realpath(folder)


def _listings(catalog: str | None, read_on: date | None) -> tuple[Listing, ...]:
    from melange.errors import InputError
    from melange.interop.gpuhunt import fetch_catalog, read_catalog

    if catalog is not None:
        return read_catalog(catalog, read_on)
    if read_on is not None:
        raise InputError("--read-on is the day of a copy", fix="give --catalog, too")
    with waiting("fetching prices"):
        fetched = fetch_catalog(datetime.now(UTC).date())
    for remark in fetched.remarks[:MOST_NAMED]:
        warning(remark)
    if len(fetched.remarks) > MOST_NAMED:
        warning(f"gpuhunt says {len(fetched.remarks) - MOST_NAMED} things more")
    return fetched.listings


def _summarise(found: PriceList) -> None:
    """What is in the file, what is not and why, and what looks wrong."""
    click.echo(f"{len(found.rows)} machines with prices", err=True)
    if found.unknown_gpus:
        named = [f"{_short(name)} {count}" for name, count in list(found.unknown_gpus.items())[:MOST_NAMED]]
        more = len(found.unknown_gpus) - MOST_NAMED
        click.echo(
            f"left out: {sum(found.unknown_gpus.values())} offers of GPUs, or parts of one, that the catalog does not "
            f"hold ({', '.join(named)}{f' and {more} more names' if more > 0 else ''})",
            err=True,
        )
    for reason, count in found.left_out.items():
        click.echo(f"left out: {count} offers {reason}", err=True)
    for row in found.suspicious[:MOST_NAMED]:
        warning(
            f"{_short(row.instance)} of {row.provider} ({_short(row.region)}) at ${row.on_demand_usd_per_hour:g}/h is "
            f"less than half of what any other provider asks for {row.gpu}: check it before you plan with it"
        )
    if len(found.suspicious) > MOST_NAMED:
        warning(f"{len(found.suspicious) - MOST_NAMED} more machines are as cheap")


def _short(text: str) -> str:
    return text if text.isprintable() and len(text) <= LONGEST_NAME else repr(text[:LONGEST_NAME])
