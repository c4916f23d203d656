"""`provgate get`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from provgate_client.adapter import reading as queries
from provgate_client.adapter.reading import Query
from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.items import ids_of_items
from provgate_client.cli.output import columns_of, format_option, print_rows
from provgate_client.cli.rows import DatedRow, LocationRow, OriginRow, RelationRow, RevisionRow, Row
from provgate_storage.model import EntityType, Id, RelationType

_ENTITIES = {
    "contents": EntityType.CONTENT,
    "directories": EntityType.DIRECTORY,
    "revisions": EntityType.REVISION,
    "origins": EntityType.ORIGIN,
}
_RELATIONS = [relation.value for relation in RelationType]


@click.group()
def get() -> None:
    """Prints facts as they are stored.

    The lines of `--format ndjson` are what `provgate add` reads; `provgate add --help` describes them. IDS are 40
    hexadecimal digits or SWHIDs; for contents also files, for origins also URLs. `-` reads ids from standard input, one
    a line: in hexadecimal, as SWHIDs, or as JSON objects with an "id", as `provgate get all` prints them.

    Exits with 1 where nothing is found.
    """


def _getter(
    noun: str, what: str, ask: Callable[[Iterable[Id]], Query[Any]], row: type[Row], of: Callable[..., Row]
) -> click.Command:
    """Returns the command that prints entities of one type."""

    @click.command(noun, help=f"Prints {what}. Ids of which nothing is known are left out.")
    @click.argument("ids", nargs=-1, required=True)
    @format_option
    @pass_connection
    @click.pass_context
    def command(
        context: click.Context, connection: Connection, ids: tuple[str, ...], output_format: str | None
    ) -> None:
        query = ask(ids_of_items(ids, _ENTITIES[noun]))
        context.exit(0 if _print(connection, query, lambda found: of(*found), row, output_format) else 1)

    return command


get.add_command(
    _getter("contents", "contents and their dates", queries.content_get, DatedRow, DatedRow.of),
)
get.add_command(
    _getter("directories", "directories and their dates", queries.directory_get, DatedRow, DatedRow.of),
)
get.add_command(
    _getter(
        "revisions",
        "revisions with their dates and the ids of their preferred origins",
        queries.revision_get,
        RevisionRow,
        RevisionRow.of,
    ),
)
get.add_command(_getter("origins", "origins and their URLs", queries.origin_get, OriginRow, OriginRow.of))


@get.command()
@click.argument("name", metavar="NAME", type=click.Choice(_RELATIONS))
@click.argument("ids", nargs=-1, required=True)
@click.option("--reverse", is_flag=True, help="IDS are of destinations, not of sources.")
@format_option
@pass_connection
@click.pass_context
def relation(
    context: click.Context,
    connection: Connection,
    name: str,
    ids: tuple[str, ...],
    reverse: bool,
    output_format: str | None,
) -> None:
    """Prints the rows of a relation that start at IDS, or end there.

    NAME is content_in_revision, content_in_directory, directory_in_revision, revision_in_origin or
    revision_before_revision. The source of a relation is the first entity of its NAME, the destination the last.
    """
    relation = RelationType(name)
    found = ids_of_items(ids, relation.destination if reverse else relation.source)
    query = queries.relation_get(relation, found, reverse)
    context.exit(0 if _print(connection, query, _relation_row, RelationRow, output_format) else 1)


@get.command("all")
@click.argument("what", metavar="WHAT", type=click.Choice([*_ENTITIES, "locations", *_RELATIONS]))
@format_option
@pass_connection
def all_(connection: Connection, what: str, output_format: str | None) -> None:
    """Prints the ids of all entities of a type, all locations, or all rows of a relation, in no order.

    WHAT is contents, directories, revisions, origins, locations, or the NAME of a relation as in `provgate get
    relation`. Entities and locations that only a row of a relation names are among them. Exits with 0 also where there
    is nothing.
    """
    if what in _ENTITIES:
        _print(connection, queries.entity_get_all(_ENTITIES[what]), DatedRow.of, DatedRow, output_format, ["id"])
    elif what == "locations":
        _print(connection, queries.location_get_all(), LocationRow.of, LocationRow, output_format)
    else:
        query = queries.relation_get_all(RelationType(what))
        _print(connection, query, _relation_row, RelationRow, output_format)


def _relation_row(found: tuple[Id, Any]) -> Row:
    return RelationRow.of(*found)


def _print(
    connection: Connection,
    query: Query[Any],
    row_of: Callable[[Any], Row],
    row: type[Row],
    output_format: str | None,
    columns: list[str] | None = None,
) -> int:
    with connection.open() as storage:
        found: Iterator[Any] = storage.stream(query)
        return print_rows(map(row_of, found), columns or columns_of(row), output_format)
