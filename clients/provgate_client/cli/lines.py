"""Reads entries from lines of ndjson, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import msgspec

from provgate_client.cli.facts import Fact
from provgate_client.cli.failures import CommandError, one_line
from provgate_client.identifiers import IdentifierError
from provgate_storage.errors import InvalidValueError

# The longest row has a path of 4096 bytes, and JSON may spend six on each.
LINE_MAX_BYTES: Final = 256 * 1024
BATCH_ENTRIES: Final = 50_000
BATCH_BYTES: Final = 16 * 1024 * 1024


def entries_of(stream: BinaryIO, fact: Fact) -> Iterator[tuple[Any, int]]:
    """Yields each line's entry, checked, and the line's size. Empty lines are skipped.

    Raises:
        CommandError: a line is too long, no JSON, or not such a fact; the message starts with its number.
    """
    decoder = msgspec.json.Decoder(fact.row)
    for number, line in enumerate(iter(lambda: stream.readline(LINE_MAX_BYTES + 1), b""), start=1):
        if len(line) > LINE_MAX_BYTES:
            raise CommandError(f"line {number}: longer than {LINE_MAX_BYTES} bytes")
        if not line.isspace():
            yield _entry(decoder, fact, line, number), len(line)


def _entry(decoder: msgspec.json.Decoder[Any], fact: Fact, line: bytes, number: int) -> Any:
    try:
        entry = fact.entry(decoder.decode(line))
        fact.kind.check([entry])
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidValueError, IdentifierError) as error:
        raise CommandError(one_line(f"line {number}: {error}")) from error
    return entry


def in_batches(entries: Iterable[tuple[Any, int]]) -> Iterator[list[Any]]:
    """Yields entries in lists that are bounded by count and by the bytes of their lines, none of them empty."""
    batch: list[Any] = []
    batch_bytes = 0
    for entry, line_bytes in entries:
        batch.append(entry)
        batch_bytes += line_bytes
        if len(batch) == BATCH_ENTRIES or batch_bytes >= BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch
