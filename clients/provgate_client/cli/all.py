"""`provgate all`: prints every place in which a content occurs."""

from __future__ import annotations

import click

from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.items import id_of_item
from provgate_client.cli.output import format_option, print_rows
from provgate_client.cli.rows import ResultRow
from provgate_storage.model import EntityType
from provgate_storage.rows.values import LIMIT_MAX


@click.command("all", short_help="Prints every place in which a content occurs.")
@click.argument("item", metavar="ID|FILE")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), help="Print only the earliest places, at most this many.")
@format_option
@pass_connection
@click.pass_context
def all_(
    context: click.Context, connection: Connection, item: str, limit: int | None, output_format: str | None
) -> None:
    """Prints every revision and path in which a content occurs, earliest first, as they arrive.

    Name the content as for `provgate first`. Exits with 1 if it is not known.
    """
    content = id_of_item(item, EntityType.CONTENT)
    with connection.open() as storage:
        rows = map(ResultRow.of, storage.content_find_all(content, limit))
        count = print_rows(rows, ResultRow, output_format, without=["content"])
    if not count:
        click.echo(f"{item}: not known", err=True)
    context.exit(0 if count else 1)
