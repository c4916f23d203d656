"""The writes of many revisions, merged into few calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import TypeVar

from provgate_client.git.decide import Additions
from provgate_client.git.history import Revision
from provgate_storage.model import Id, RelationData, RelationType, RevisionData

T = TypeVar("T")


class Batch:
    """What some revisions add.

    Attributes:
        rows: the rows of each relation, by source.
        row_count: how many rows there are; a row that was added twice counts twice.
        content_dates: the dates of contents.
        directory_dates: the dates of directories.
        revisions: dates and preferred origins of revisions.
        finished_count: how many of `revisions` are complete when they are written.
    """

    def __init__(self) -> None:
        self.rows: dict[RelationType, dict[Id, set[RelationData]]] = {relation: {} for relation in RelationType}
        self.row_count = 0
        self.content_dates: dict[Id, datetime] = {}
        self.directory_dates: dict[Id, datetime] = {}
        self.revisions: dict[Id, RevisionData] = {}
        self.finished_count = 0

    def add(self, revision: Revision, additions: Additions, origin: Id | None) -> None:
        """Adds a revision with all that it adds; `origin` becomes its preferred origin unless it is None."""
        for content, path in additions.in_revision:
            self.add_row(RelationType.CNT_EARLY_IN_REV, content, RelationData(revision.id, path))
        for content, directory, path in additions.in_directory:
            self.add_row(RelationType.CNT_IN_DIR, content, RelationData(directory, path))
        for directory, path in additions.frontiers:
            self.add_row(RelationType.DIR_IN_REV, directory, RelationData(revision.id, path))
        for parent in revision.parents:
            self.add_row(RelationType.REV_BEFORE_REV, parent, RelationData(revision.id, None))
        self.content_dates.update(additions.content_dates)
        self.directory_dates.update(additions.directory_dates)
        self.revisions[revision.id] = RevisionData(revision.date, origin)
        self.finished_count += 1

    def add_row(self, relation: RelationType, source: Id, row: RelationData) -> None:
        """Adds a row of a relation."""
        self.rows[relation].setdefault(source, set()).add(row)
        self.row_count += 1


def pieces(items: Iterable[T], count_max: int) -> Iterator[list[T]]:
    """Yields items in lists of at most `count_max`."""
    remaining = iter(items)
    while piece := list(islice(remaining, count_max)):
        yield piece


def pieces_of_rows(
    rows: Mapping[Id, set[RelationData]], count_max: int
) -> Iterator[tuple[dict[Id, set[RelationData]], int]]:
    """Yields rows in mappings of at most `count_max` rows, each with its count.

    The rows of one source stay together. If they are more than `count_max`, they are a mapping of their own.
    """
    piece: dict[Id, set[RelationData]] = {}
    piece_count = 0
    for source, destinations in rows.items():
        if piece and piece_count + len(destinations) > count_max:
            yield piece, piece_count
            piece, piece_count = {}, 0
        piece[source] = destinations
        piece_count += len(destinations)
    if piece:
        yield piece, piece_count
