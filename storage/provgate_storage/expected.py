"""What a program expects of a database's schema, and what it says where it finds something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from provgate_storage.errors import NotSetUpError, SchemaMismatchError

VERSION: Final = 1
"""The version of the schema of this program. Every storage has schemas of its own under one number."""

_SETUP_COMMAND: Final = "`provgate-workers setup`"


def no_schema() -> NotSetUpError:
    """Returns the error of a database that was never set up."""
    return NotSetUpError(f"the database has no schema: run {_SETUP_COMMAND}")


def not_ours(names: Iterable[str], what: str) -> SchemaMismatchError:
    """Returns the error of a database that holds, say, tables of somebody else under our names."""
    there = ", ".join(sorted(names))
    return SchemaMismatchError(f"the database holds {what} that are not provgate's ({there}): give it its own one")


def check_version(found: Sequence[object]) -> None:
    """Compares the versions that the database records, one unless somebody changed it, with `VERSION`.

    Raises:
        SchemaMismatchError: they differ; the text says what to do.
    """
    if found == [VERSION]:
        return
    if len(found) == 1 and isinstance(found[0], int) and found[0] > VERSION:
        raise SchemaMismatchError(
            f"the database holds version {found[0]} of the schema, newer than version {VERSION} of this program: "
            "upgrade the program"
        )
    raise SchemaMismatchError(
        f"the database holds no version of the schema that is known ({found}), version {VERSION} is expected: "
        "restore it, or give the program an empty database"
    )


def check_nothing_missing(missing: Iterable[str]) -> None:
    """Raises `NotSetUpError` where the database lacks, say, an index."""
    names = ", ".join(sorted(missing))
    if names:
        raise NotSetUpError(f"the database lacks {names}: run {_SETUP_COMMAND}")


def check_range_counts(recorded: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raises `SchemaMismatchError` where the range counts of exchanges differ; the text says which."""
    differing = [
        f"{exchange}: {recorded.get(exchange, 'none')} recorded, {expected.get(exchange, 'none')} configured"
        for exchange in sorted(recorded.keys() | expected.keys())
        if recorded.get(exchange) != expected.get(exchange)
    ]
    if differing:
        raise SchemaMismatchError(
            f"the range counts differ from those of the database ({'; '.join(differing)}): "
            f"configure every program alike, or change them with {_SETUP_COMMAND}"
        )
