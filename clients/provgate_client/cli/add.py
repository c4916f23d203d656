"""`provgate add`."""

from __future__ import annotations

import sys

import click

from provgate_client.cli import rows as facts
from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.rows import Fact, entries_of, in_batches, relation_fact
from provgate_runtime.counted import counted
from provgate_storage.model import RelationType


@click.group(short_help="Writes facts, read as ndjson from standard input.")
def add() -> None:
    """Writes facts: reads ndjson from standard input, one object a line, as `provgate get` prints it.

    \b
    contents, directories   {"id": ID, "date": DATE}
    revisions               {"id": ID, "date": DATE, "origin": ID of the preferred origin}
    origins                 {"id": ID, "url": URL}
    locations               {"path": PATH}
    relation NAME           {"src": ID, "dst": ID, "path": PATH}

    ID is 40 hexadecimal digits or a SWHID. DATE is ISO 8601 with an offset, for example 2004-02-29T12:00:00+01:00.
    A path that is not UTF-8 is written in hexadecimal, as "path_hex" instead of "path". Dates and preferred origins may
    be left out. Rows of revision_in_origin and revision_before_revision have no path. Empty lines are skipped.

    Lines are written in batches as they are read, so input may be of any length. A bad line ends the command: its
    number is told and nothing more is sent. The number of entries that are acked, that is stored, is told in any case;
    writing an entry again changes nothing.
    """  # noqa: D301 - click keeps the lines of a paragraph that starts with a backspace


def _adder(fact: Fact) -> click.Command:
    """Returns the command that writes facts of one kind."""

    @click.command(fact.noun, help=f"Writes {fact.noun}, one a line: {fact.example}", short_help=f"Writes {fact.noun}.")
    @pass_connection
    def command(connection: Connection) -> None:
        _add(connection, fact)

    return command


for each in (facts.CONTENTS, facts.DIRECTORIES, facts.REVISIONS, facts.ORIGINS, facts.LOCATIONS):
    add.add_command(_adder(each))


@add.command(
    help=f"Writes rows of the relation NAME, one a line: {facts.RELATION_EXAMPLE}\n\n"
    f"NAME is one of {', '.join(RelationType)}.",
    short_help="Writes rows of a relation.",
)
@click.argument("name", metavar="NAME", type=click.Choice([relation.value for relation in RelationType]))
@pass_connection
def relation(connection: Connection, name: str) -> None:
    """Writes rows of a relation."""
    _add(connection, relation_fact(RelationType(name)))


def _add(connection: Connection, fact: Fact) -> None:
    acked_count = 0
    with connection.open() as storage:
        try:
            for batch in in_batches(entries_of(sys.stdin.buffer, fact)):
                storage.write(fact.kind, batch)
                acked_count += len(batch)
        finally:
            click.echo(f"{counted(acked_count, 'entry', 'entries')} acked", err=True)
