"""`provgate first`: prints where contents first appeared."""

from __future__ import annotations

from collections.abc import Iterator

import click

from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.items import id_of_item
from provgate_client.cli.output import format_option, print_rows
from provgate_client.cli.rows import ResultRow
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_storage.model import EntityType, Id


@click.command(short_help="Prints where a content first appeared.")
@click.argument("items", metavar="ID|FILE...", nargs=-1, required=True)
@format_option
@pass_connection
@click.pass_context
def first(context: click.Context, connection: Connection, items: tuple[str, ...], output_format: str | None) -> None:
    """Prints in which revision, at which path and from which origin each content first appeared.

    Name a content by 40 hexadecimal digits, by its SWHID (swh:1:cnt:...; qualifiers are ignored), or by a FILE with the
    same bytes, which is hashed as git does. A symbolic link is hashed by the path that it holds, as git stores it.
    A name that looks like an id is an id: write ./NAME for a file with such a name.

    Exits with 1 if none of the contents is known. Prints those that are not known to standard error.
    """
    wanted = [(item, id_of_item(item, EntityType.CONTENT)) for item in items]
    with connection.open() as storage:
        count = print_rows(_rows(storage, wanted), ResultRow, output_format)
    context.exit(0 if count else 1)


def _rows(storage: ProvenanceStorageGrpc, wanted: list[tuple[str, Id]]) -> Iterator[ResultRow]:
    for item, content in wanted:
        result = storage.content_find_first(content)
        if result is not None:
            yield ResultRow.of(result)
        else:
            click.echo(f"{item}: not known", err=True)
