"""``melange schema``: the JSON Schemas of the file formats."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", metavar="workload|measurements|plan")
def schema(name: str) -> None:
    """Print the JSON Schema (draft 2020-12) of a file format.

    'workload' describes workload.yaml, 'measurements' one line of a measurements file (JSON Lines), 'plan' plan.json.

    \b
    Examples:
      melange schema workload
      melange schema plan > plan.schema.json
    """
    import json

    from melange.files.documents import load_schema

    click.echo(json.dumps(load_schema(name), indent=2, ensure_ascii=False))
