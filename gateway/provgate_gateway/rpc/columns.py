"""From the columns of request messages to rows: checks whole columns, where `requests` checks entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from provgate.v1 import model_pb2
from provgate_gateway.errors import invalid
from provgate_runtime.counted import counted
from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import Id, RelationType
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import (
    are_ids,
    are_microseconds,
    are_paths,
    are_urls,
    check_id,
    check_microseconds,
    check_relation_path,
    check_url,
    first_invalid,
)

T = TypeVar("T")


def dated_rows(columns: model_pb2.DatedColumns, path: str) -> list[Row]:
    """Returns contents or directories.

    Args:
        columns: of a request message.
        path: of the field that holds them.

    Raises:
        CallError: a value is invalid, or a column does not have one for each entry; so in all functions here.
    """
    entry_ids = _keys(columns.ids, f"{path}.ids")
    return list(zip(entry_ids, _dates(columns.dates, len(entry_ids), f"{path}.dates"), strict=True))


def revision_rows(columns: model_pb2.RevisionColumns, path: str) -> list[Row]:
    """Returns revisions."""
    entry_ids = _keys(columns.ids, f"{path}.ids")
    dates = _dates(columns.dates, len(entry_ids), f"{path}.dates")
    origins: Sequence[Id | None] = ids(columns.origins, f"{path}.origins") or [None] * len(entry_ids)
    _check_complete(origins, len(entry_ids), InvalidValue.ID, f"{path}.origins")
    return list(zip(entry_ids, dates, origins, strict=True))


def origin_rows(columns: model_pb2.OriginColumns, path: str) -> list[Row]:
    """Returns origins."""
    entry_ids = _keys(columns.ids, f"{path}.ids")
    urls = list(columns.urls)
    _check_complete(urls, len(entry_ids), InvalidValue.URL, f"{path}.urls")
    check_column(are_urls, check_url, urls, f"{path}.urls")
    return list(zip(entry_ids, urls, strict=True))


def relation_rows(relation: RelationType, columns: model_pb2.RelationColumns, path: str) -> list[Row]:
    """Returns rows of `relation`."""
    srcs = _keys(columns.srcs, f"{path}.srcs")
    dsts = ids(columns.dsts, f"{path}.dsts")
    _check_complete(dsts, len(srcs), InvalidValue.ID, f"{path}.dsts")
    paths = list(columns.paths)
    if relation.has_path:
        _check_complete(paths, len(srcs), InvalidValue.PATH, f"{path}.paths")
    are_valid = are_paths if relation.has_path else _are_none
    check_column(are_valid, lambda value: check_relation_path(relation, value), paths, f"{path}.paths")
    return list(zip(srcs, dsts, paths, strict=True) if relation.has_path else zip(srcs, dsts, strict=True))


def ids(column: Iterable[Id], path: str) -> list[Id]:
    """Returns ids."""
    values = list(column)
    check_column(are_ids, check_id, values, path)
    return values


def check_column(
    are_valid: Callable[[Sequence[T]], bool], check: Callable[[T], object], values: Sequence[T], path: str
) -> None:
    """Checks the values of a repeated field.

    Args:
        are_valid: returns whether all values are surely valid; from `provgate_storage.rows.values`.
        check: checks one value.
        values: of the field.
        path: of the field.
    """
    if are_valid(values):
        return
    found = first_invalid(check, values)
    if found is not None:
        index, error = found
        raise invalid(error, f"{path}[{index}]")


def _keys(column: Iterable[Id], path: str) -> list[Id]:
    """Returns the ids of the entries of a block, at least one: empty blocks cost work that nothing counts."""
    values = ids(column, path)
    if not values:
        raise invalid(InvalidValueError(InvalidValue.ID, "the column is empty"), path)
    return values


def _dates(column: Sequence[int], count: int, path: str) -> Sequence[int | None]:
    if not column:
        return [None] * count
    # Before it is a list: `entry_count` does not count the values of a packed column, which may be millions.
    _check_complete(column, count, InvalidValue.DATE, path)
    dates = list(column)
    check_column(are_microseconds, check_microseconds, dates, path)
    return dates


def _check_complete(column: Collection[object], count: int, kind: InvalidValue, path: str) -> None:
    if len(column) != count:
        text = f"the column has {counted(len(column), 'value')} for {counted(count, 'entry', 'entries')}"
        raise invalid(InvalidValueError(kind, text), path)


def _are_none(values: Collection[bytes]) -> bool:
    return not values
