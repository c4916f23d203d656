"""Prints rows, one a line, as they come: ndjson for programs, aligned columns for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import click
import msgspec
from rich.console import Console
from rich.text import Text

from provgate_client.cli.rows import Row

F = TypeVar("F", bound=Callable[..., Any])

# Columns that nearly always have this width; the others are not padded.
_WIDTHS: Final = {"id": 40, "src": 40, "dst": 40, "content": 40, "revision": 40, "date": 25, "swhid": 50}
_NOT_SHOWN: Final = frozenset({"path_hex"})


def format_option(command: F) -> F:
    """Gives a command the option `--format`."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(["table", "ndjson"]),
        help="How to print: table on a terminal, ndjson elsewhere, where not given. In ndjson a path that is not UTF-8 "
        "is hexadecimal under path_hex instead of path; a table shows what cannot be printed as \\xNN.",
    )(command)


def print_rows(rows: Iterable[Row], columns: Sequence[str], output_format: str | None) -> int:
    """Prints rows as they come, and returns how many there were.

    Args:
        rows: rows that have the attributes `columns`.
        columns: what a table shows; an empty table has no heading.
        output_format: "table", "ndjson", or None to decide by where standard output goes.
    """
    if output_format is None:
        output_format = "table" if sys.stdout.isatty() else "ndjson"
    return _print_table(rows, columns) if output_format == "table" else _print_ndjson(rows)


def columns_of(row: type[Row]) -> list[str]:
    """Returns the columns of a table of all there is in rows of this type."""
    return [name for name in row.__struct_fields__ if name not in _NOT_SHOWN]


def printable(text: str) -> str:
    r"""Returns `text` on one line, without anything that a terminal could take for a command; see `printable_path`."""
    return printable_path(text.encode("utf-8", "surrogatepass"))


def printable_path(path: bytes) -> str:
    r"""Returns `path` as text that tells its bytes: a backslash doubled, bytes that cannot be shown as \xNN."""
    return "".join(map(_printable_letter, path.decode("utf-8", "surrogateescape")))


def _printable_letter(letter: str) -> str:
    if letter == "\\":
        return "\\\\"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))


def _print_ndjson(rows: Iterable[Row]) -> int:
    encoder = msgspec.json.Encoder()
    stream = sys.stdout.buffer
    count = 0
    for row in rows:
        stream.write(encoder.encode(row) + b"\n")
        count += 1
    stream.flush()
    return count


def _print_table(rows: Iterable[Row], columns: Sequence[str]) -> int:
    console = Console(highlight=False, markup=False, emoji=False)
    count = 0
    for row in rows:
        if count == 0:
            _print_line(console, columns, columns, style="bold")
        _print_line(console, columns, [_cell(row, column) for column in columns])
        count += 1
    return count


def _print_line(console: Console, columns: Sequence[str], cells: Sequence[str], style: str = "") -> None:
    padded = (cell.ljust(_WIDTHS.get(column, 0)) for column, cell in zip(columns, cells, strict=True))
    # Not wrapped and not cropped: a line stays a line, whatever the width of the terminal.
    console.print(Text("  ".join(padded).rstrip(), style=style), soft_wrap=True)


def _cell(row: Row, column: str) -> str:
    value = getattr(row, column)
    path_hex = getattr(row, "path_hex", None)
    if column == "path" and path_hex is not None:
        return printable_path(bytes.fromhex(path_hex))
    if value is None:
        return "-"
    return printable(value)
