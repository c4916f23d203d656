"""`provgate get`: prints facts as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import click

from provgate_client.adapter import reading
from provgate_client.adapter.reading import Query
from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.items import ids_of_items
from provgate_client.cli.output import format_option, print_rows
from provgate_client.cli.rows import DatedRow, EntityRow, LocationRow, OriginRow, RelationRow, RevisionRow, Row
from provgate_storage.model import EntityType, Id, RelationType

E = TypeVar("E")

_ENTITIES: Final = {
    "contents": EntityType.CONTENT,
    "directories": EntityType.DIRECTORY,
    "revisions": EntityType.REVISION,
    "origins": EntityType.ORIGIN,
}
_RELATIONS: Final = [relation.value for relation in RelationType]


@click.group()
def get() -> None:
    """Prints facts as they are stored.

    `provgate add` reads the lines that `--format ndjson` prints; `provgate add --help` describes them. IDS are 40
    hexadecimal digits or SWHIDs; for contents also files, for origins also URLs. `-` reads ids from standard input, one
    a line: in hexadecimal, as SWHIDs, or as JSON objects with an "id", as `provgate get all` prints them.

    Exits with 1 if nothing is found.
    """


def _getter(noun: str, what: str, query: Callable[[Iterable[Id]], Query[E]], row: type[Row[E]]) -> click.Command:
    @click.command(noun, help=f"Prints {what}. Ids of which nothing is known are left out.")
    @click.argument("ids", nargs=-1, required=True)
    @format_option
    @pass_connection
    @click.pass_context
    def command(
        context: click.Context, connection: Connection, ids: tuple[str, ...], output_format: str | None
    ) -> None:
        asked = query(ids_of_items(ids, _ENTITIES[noun]))
        context.exit(0 if _print(connection, asked, row, output_format) else 1)

    return command


get.add_command(_getter("contents", "contents and their dates", reading.content_get, DatedRow))
get.add_command(_getter("directories", "directories and their dates", reading.directory_get, DatedRow))
get.add_command(
    _getter(
        "revisions",
        "revisions with their dates and the ids of their preferred origins",
        reading.revision_get,
        RevisionRow,
    )
)
get.add_command(_getter("origins", "origins and their URLs", reading.origin_get, OriginRow))


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
    """Prints the rows of a relation that start, or end, at IDS.

    NAME is content_in_revision, content_in_directory, directory_in_revision, revision_in_origin or
    revision_before_revision. The source of a relation is the first entity of its NAME, the destination the last.
    """
    relation = RelationType(name)
    found = ids_of_items(ids, relation.destination if reverse else relation.source)
    asked = reading.relation_get(relation, found, reverse)
    context.exit(0 if _print(connection, asked, RelationRow, output_format) else 1)


@get.command("all")
@click.argument("what", metavar="WHAT", type=click.Choice([*_ENTITIES, "locations", *_RELATIONS]))
@format_option
@pass_connection
def all_(connection: Connection, what: str, output_format: str | None) -> None:
    """Prints the ids of all entities of a type, all locations, or all rows of a relation, unordered.

    WHAT is contents, directories, revisions, origins, locations, or the NAME of a relation as in `provgate get
    relation`. Entities and locations that only a row of a relation names are included. Exits with 0 even if there is
    nothing.
    """
    if what in _ENTITIES:
        _print(connection, reading.entity_get_all(_ENTITIES[what]), EntityRow, output_format)
    elif what == "locations":
        _print(connection, reading.location_get_all(), LocationRow, output_format)
    else:
        _print(connection, reading.relation_get_all(RelationType(what)), RelationRow, output_format)


def _print(connection: Connection, query: Query[E], row: type[Row[E]], output_format: str | None) -> int:
    with connection.open() as storage:
        return print_rows(map(row.of, storage.stream(query)), row, output_format)
