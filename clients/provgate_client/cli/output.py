"""Prints rows, one a line, as they arrive: ndjson for programs, aligned columns for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import click
import msgspec
from rich.console import Console
from rich.text import Text

from provgate_client.cli.rows import Row

E = TypeVar("E")
F = TypeVar("F", bound=Callable[..., Any])

# The usual width of a column. Columns without one are not padded.
_WIDTHS: Final = {"id": 40, "src": 40, "dst": 40, "content": 40, "revision": 40, "date": 25, "swhid": 50}


def format_option(command: F) -> F:
    """Adds the option `--format` to a command."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(["table", "ndjson"]),
        help="How to print. The default is table on a terminal, ndjson elsewhere. In ndjson a path that is not UTF-8 "
        "is hexadecimal under path_hex instead of path; in a table, bytes that cannot be printed are \\xNN.",
    )(command)


def print_rows(
    rows: Iterable[Row[E]], row: type[Row[E]], output_format: str | None, without: Sequence[str] = ()
) -> int:
    """Prints rows as they arrive, and returns how many there were.

    Args:
        rows: the rows.
        row: their type.
        output_format: "table", "ndjson", or None to decide by where standard output goes.
        without: fields that a table does not show. An empty table has no heading.
    """
    if output_format is None:
        output_format = "table" if sys.stdout.isatty() else "ndjson"
    if output_format == "ndjson":
        return _print_ndjson(rows)
    return _print_table(rows, [name for name in row.__struct_fields__ if name not in ("path_hex", *without)])


def _print_ndjson(rows: Iterable[Row[E]]) -> int:
    encoder = msgspec.json.Encoder()
    stream = sys.stdout.buffer
    count = 0
    for row in rows:
        stream.write(encoder.encode(row) + b"\n")
        count += 1
    stream.flush()
    return count


def _print_table(rows: Iterable[Row[E]], columns: Sequence[str]) -> int:
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
    # Lines are neither wrapped nor cropped, whatever the width of the terminal.
    console.print(Text("  ".join(padded).rstrip(), style=style), soft_wrap=True)


def _cell(row: Row[E], column: str) -> str:
    path_hex = getattr(row, "path_hex", None)
    if column == "path" and path_hex is not None:
        return printable_path(bytes.fromhex(path_hex))
    value = getattr(row, column)
    return "-" if value is None else printable(value)


def printable(text: str) -> str:
    r"""Returns `text` on one line, without anything that a terminal could execute; see `printable_path`."""
    return printable_path(text.encode("utf-8", "surrogatepass"))


def printable_path(path: bytes) -> str:
    r"""Returns `path` as text that shows every byte: a backslash is doubled, bytes that cannot be printed are \xNN."""
    return "".join(map(_printable_letter, path.decode("utf-8", "surrogateescape")))


def _printable_letter(letter: str) -> str:
    if letter == "\\":
        return "\\\\"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
