"""``melange gpus``: what the catalog knows, and what renting it costs."""

from __future__ import annotations

from typing import Any

import click

from melange.cli.default_group import DefaultGroup
from melange.cli.gpus_refresh import refresh
from melange.cli.options import names, output_option


@click.group(cls=DefaultGroup, default="list", bare=True, context_settings={"help_option_names": ["-h", "--help"]})
def gpus() -> None:
    """List GPUs, models and what renting them costs ('list' is the default), and fetch current prices.

    \b
    Examples:
      melange gpus
      melange gpus --gpu H100,H200 --price-set 2026-11
      melange gpus --models -o json
      melange gpus refresh -o prices.csv
    """


@gpus.command("list")
@click.option("--models", "show_models", is_flag=True, help="List the models instead.")
@click.option("--price-set", help="Only this price set, for example 2026-11.")
@click.option("--prices", "price_file", type=click.Path(dir_okay=False), help="List a CSV of your own prices instead.")
@click.option("--gpu", "gpu_names", multiple=True, callback=names, metavar="NAMES", help="Only these GPUs.")
@click.option("--provider", "providers", multiple=True, callback=names, metavar="NAMES", help="Only these providers.")
@output_option("table", "json", "csv")
def list_gpus(
    show_models: bool,
    price_set: str | None,
    price_file: str | None,
    gpu_names: tuple[str, ...],
    providers: tuple[str, ...],
    output: str,
) -> None:
    """List GPUs, models, and the instances that rent them, with each price's age.

    \b
    Examples:
      melange gpus
      melange gpus --gpu H100,H200 --price-set 2026-11
      melange gpus --models -o json
      melange gpus --prices prices.csv --provider aws
    """
    from datetime import UTC, datetime

    from melange.catalog.hardware import load_catalog
    from melange.catalog.offers import read_prices
    from melange.errors import InputError
    from melange.report.catalog import render_gpus, render_models

    catalog = load_catalog()
    if show_models:
        click.echo(render_models(catalog, output))
        return
    offers = read_prices(price_file, catalog)
    wanted = {catalog.gpu(name).name for name in gpu_names}
    filters: list[tuple[str, set[str], Any]] = [
        ("price set", {price_set} if price_set else set(), lambda o: o.price_set),
        ("provider", set(providers), lambda o: o.provider),
        ("GPU", wanted, lambda o: o.gpu),
    ]
    for what, values, field in filters:
        known = {field(offer) for offer in offers}
        for value in values - known:
            if what != "GPU":
                raise InputError(f"no offer of the {what} {value!r}", fix=f"known: {', '.join(sorted(known))}")
        offers = tuple(offer for offer in offers if not values or field(offer) in values)
    shown = [gpu for name, gpu in catalog.gpus.items() if not wanted or name in wanted]
    click.echo(render_gpus(shown, offers, output, today=datetime.now(UTC).date()))


gpus.add_command(refresh)
