"""`provgate add`: writes the entries that it reads from standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final, Generic, TypeVar

import click
import msgspec

from provgate_client.adapter import messages
from provgate_client.adapter.messages import EntryKind
from provgate_client.cli.connection import Connection, pass_connection
from provgate_client.cli.failures import CommandError, one_line
from provgate_client.cli.rows import DatedRow, LocationRow, OriginRow, RelationRow, RevisionRow
from provgate_client.identifiers import IdentifierError
from provgate_runtime.counted import counted
from provgate_storage.errors import InvalidValueError
from provgate_storage.model import EntityType, RelationType

E = TypeVar("E")
R = TypeVar("R", DatedRow, RevisionRow, OriginRow, LocationRow, RelationRow)

# The longest row has a path of 4096 bytes, and JSON may use six bytes for each.
LINE_MAX_BYTES: Final = 256 * 1024
BATCH_ENTRIES: Final = 50_000
_BATCH_BYTES: Final = 16 * 1024 * 1024


@click.group(short_help="Writes facts that it reads as ndjson from standard input.")
def add() -> None:
    """Writes facts. Reads ndjson from standard input, one object a line, as `provgate get` prints it.

    \b
    contents, directories   {"id": ID, "date": DATE}
    revisions               {"id": ID, "date": DATE, "origin": ID of the preferred origin}
    origins                 {"id": ID, "url": URL}
    locations               {"path": PATH}
    relation NAME           {"src": ID, "dst": ID, "path": PATH}

    ID is 40 hexadecimal digits or a SWHID. DATE is ISO 8601 with an offset, for example 2004-02-29T12:00:00+01:00.
    A path that is not UTF-8 is hexadecimal under "path_hex" instead of "path". Dates and preferred origins are
    optional. Rows of revision_in_origin and revision_before_revision have no path. Empty lines are skipped.

    Lines are written in batches as they are read, so the input may be of any length. The command ends at the first
    invalid line and prints its number. At the end it always prints how many entries are acked, that is stored. Writing
    an entry again changes nothing.
    """  # noqa: D301 - click keeps the lines of a paragraph that starts with a backspace


@dataclass(frozen=True, slots=True)
class _Fact(Generic[E, R]):
    """A kind of fact.

    Attributes:
        kind: how it is written.
        row: the type of its lines.
        entry: returns the entry of a row; raises `InvalidValueError` or `IdentifierError`.
        example: a line, for the help text.
    """

    kind: EntryKind[E]
    row: type[R]
    entry: Callable[[R], E]
    example: str


_DATED: Final = '{"id": ID, "date": "2004-02-29T12:00:00+01:00"}'
_FACTS: Final[dict[str, _Fact[Any, Any]]] = {
    "contents": _Fact(messages.CONTENT, DatedRow, partial(DatedRow.entry, entity=EntityType.CONTENT), _DATED),
    "directories": _Fact(messages.DIRECTORY, DatedRow, partial(DatedRow.entry, entity=EntityType.DIRECTORY), _DATED),
    "revisions": _Fact(
        messages.REVISION,
        RevisionRow,
        RevisionRow.entry,
        '{"id": ID, "date": "2004-02-29T12:00:00+01:00", "origin": ID}',
    ),
    "origins": _Fact(messages.ORIGIN, OriginRow, OriginRow.entry, '{"id": ID, "url": "https://example.org/repo.git"}'),
    "locations": _Fact(messages.LOCATION, LocationRow, LocationRow.entry, '{"path": "src/main.c"}'),
}
_RELATION_EXAMPLE: Final = '{"src": ID, "dst": ID, "path": "src/main.c"}'


def _adder(noun: str, fact: _Fact[E, R]) -> click.Command:
    @click.command(noun, help=f"Writes {noun}, one a line: {fact.example}", short_help=f"Writes {noun}.")
    @pass_connection
    def command(connection: Connection) -> None:
        _add(connection, fact)

    return command


for _noun, _fact in _FACTS.items():
    add.add_command(_adder(_noun, _fact))


@add.command(
    help=f"Writes rows of the relation NAME, one a line: {_RELATION_EXAMPLE}\n\n"
    f"NAME is one of {', '.join(RelationType)}.",
    short_help="Writes rows of a relation.",
)
@click.argument("name", metavar="NAME", type=click.Choice([relation.value for relation in RelationType]))
@pass_connection
def relation(connection: Connection, name: str) -> None:
    """Writes rows of a relation."""
    relation = RelationType(name)
    entry = partial(RelationRow.entry, relation=relation)
    _add(connection, _Fact(messages.relation_kind(relation), RelationRow, entry, _RELATION_EXAMPLE))


def _add(connection: Connection, fact: _Fact[E, R]) -> None:
    acked_count = 0
    with connection.open() as storage:
        try:
            for batch in _batches(sys.stdin.buffer, fact):
                storage.write(fact.kind, batch)
                acked_count += len(batch)
        finally:
            click.echo(f"{counted(acked_count, 'entry', 'entries')} acked", err=True)


def _batches(stream: BinaryIO, fact: _Fact[E, R]) -> Iterator[list[E]]:
    """Yields the entries of lines, checked, in lists that are bounded by entries and by bytes of their lines.

    Raises:
        CommandError: a line is too long, not JSON, or not such a fact; the message starts with its number.
    """
    decoder = msgspec.json.Decoder(fact.row)
    batch: list[E] = []
    batch_bytes = 0
    for number, line in enumerate(iter(partial(stream.readline, LINE_MAX_BYTES + 1), b""), start=1):
        if len(line) > LINE_MAX_BYTES:
            raise CommandError(f"line {number}: longer than {LINE_MAX_BYTES} bytes")
        if line.isspace():
            continue
        try:
            entry = fact.entry(decoder.decode(line))
            fact.kind.check([entry])
        except (msgspec.MsgspecError, UnicodeDecodeError, InvalidValueError, IdentifierError) as error:
            raise CommandError(one_line(f"line {number}: {error}")) from error
        batch.append(entry)
        batch_bytes += len(line)
        if len(batch) == BATCH_ENTRIES or batch_bytes >= _BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch
