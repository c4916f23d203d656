"""What the schemas of all databases have in common: what they hold under which name, and the checks of a set-up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from provgate_storage.errors import NotSetUpError, SchemaMismatchError
from provgate_storage.model import EntityType, RelationType
from provgate_storage.rows.rows import LOCATION

VERSION: Final = 1
"""The version of the schema. Each database has a schema of its own, all with this number."""

_SETUP_COMMAND: Final = "`provgate-workers setup`"


def ends_of(entity: EntityType) -> list[tuple[str, str]]:
    """Returns (name, field) of everything that holds ids of an entity type, the entities themselves first.

    The name is that of an entity or a relation. The field is `id` in entities, `src` and `dst` in relations, and
    `origin` in revisions.
    """
    ends = [(entity.value, "id")]
    for relation in RelationType:
        ends += [(relation.value, "src")] if relation.source is entity else []
        ends += [(relation.value, "dst")] if relation.destination is entity else []
    if entity is EntityType.ORIGIN:
        ends.append((EntityType.REVISION.value, "origin"))
    return ends


def names_with_paths() -> list[str]:
    """Returns the names of everything that holds paths: the locations first, then the relations with paths."""
    return [LOCATION, *(relation.value for relation in RelationType if relation.has_path)]


def no_schema() -> NotSetUpError:
    """Returns the error for a database that was never set up."""
    return NotSetUpError(f"the database has no schema: run {_SETUP_COMMAND}")


def not_ours(names: Iterable[str], what: str) -> SchemaMismatchError:
    """Returns the error for a database whose tables, or collections, are another program's."""
    return SchemaMismatchError(
        f"the database holds {what} that are not provgate's ({', '.join(sorted(names))}): give provgate its own one"
    )


def check_version(recorded: Sequence[object]) -> None:
    """Checks the version that the database records: a list of one, unless somebody changed it.

    Raises:
        SchemaMismatchError: it is not `VERSION`; the text says what to do.
    """
    if recorded == [VERSION]:
        return
    if len(recorded) == 1 and isinstance(recorded[0], int) and recorded[0] > VERSION:
        raise SchemaMismatchError(
            f"the database holds version {recorded[0]} of the schema, newer than version {VERSION} of this program: "
            "upgrade the program"
        )
    raise SchemaMismatchError(
        f"the database holds no known version of the schema ({recorded}), version {VERSION} is expected: "
        "restore it, or give the program an empty database"
    )


def check_nothing_missing(missing: Iterable[str]) -> None:
    """Raises `NotSetUpError` if the database lacks, say, an index."""
    names = ", ".join(sorted(missing))
    if names:
        raise NotSetUpError(f"the database lacks {names}: run {_SETUP_COMMAND}")


def check_range_counts(recorded: Mapping[str, int], expected: Mapping[str, int] | None) -> None:
    """Raises `SchemaMismatchError` if the range counts of exchanges differ; the text says which.

    Args:
        recorded: by the database.
        expected: by the program; None accepts any.
    """
    if expected is None or recorded == expected:
        return
    differing = [
        f"{exchange}: {recorded.get(exchange, 'none')} recorded, {expected.get(exchange, 'none')} configured"
        for exchange in sorted(recorded.keys() | expected.keys())
        if recorded.get(exchange) != expected.get(exchange)
    ]
    raise SchemaMismatchError(
        f"the range counts differ from those of the database ({'; '.join(differing)}): "
        f"configure every program alike, or change them with {_SETUP_COMMAND}"
    )
