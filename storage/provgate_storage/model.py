"""The values of the provenance index, as every storage takes and returns them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

Id: TypeAlias = bytes
"""20 bytes: the SHA-1 that git gives an object; for an origin the SHA-1 of its URL, for a location that of its path."""

Path: TypeAlias = bytes
"""A path in a source tree: 0 to 4096 bytes without NUL, not necessarily UTF-8."""


class EntityType(StrEnum):
    """The kinds of entity that have ids of their own."""

    CONTENT = "content"
    DIRECTORY = "directory"
    REVISION = "revision"
    ORIGIN = "origin"


class RelationType(StrEnum):
    """The relations between entities. The source is the first entity of the name, the destination the last."""

    CNT_EARLY_IN_REV = "content_in_revision"
    CNT_IN_DIR = "content_in_directory"
    DIR_IN_REV = "directory_in_revision"
    REV_IN_ORG = "revision_in_origin"
    REV_BEFORE_REV = "revision_before_revision"

    @property
    def source(self) -> EntityType:
        """The type of the entities that rows of this relation start at."""
        return _ENDS[self][0]

    @property
    def destination(self) -> EntityType:
        """The type of the entities that rows of this relation end at."""
        return _ENDS[self][1]

    @property
    def has_path(self) -> bool:
        """Whether the rows of this relation have paths: all of them, or none."""
        # By identity: this is called for every row, and hashing a member costs more than the rest of a row's check.
        return self is not RelationType.REV_IN_ORG and self is not RelationType.REV_BEFORE_REV


_ENDS = {
    RelationType.CNT_EARLY_IN_REV: (EntityType.CONTENT, EntityType.REVISION),
    RelationType.CNT_IN_DIR: (EntityType.CONTENT, EntityType.DIRECTORY),
    RelationType.DIR_IN_REV: (EntityType.DIRECTORY, EntityType.REVISION),
    RelationType.REV_IN_ORG: (EntityType.REVISION, EntityType.ORIGIN),
    RelationType.REV_BEFORE_REV: (EntityType.REVISION, EntityType.REVISION),
}


@dataclass(frozen=True, slots=True)
class RevisionData:
    """The known data of a revision.

    Attributes:
        date: the author date, timezone-aware; None if it is unknown.
        origin: the id of the preferred origin; None if there is none.
    """

    date: datetime | None
    origin: Id | None


@dataclass(frozen=True, slots=True)
class RelationData:
    """One row of a relation, without its source.

    Attributes:
        dst: the id of the destination.
        path: the path of the source in the destination; None in the relations that have no paths.
    """

    dst: Id
    path: Path | None


@dataclass(frozen=True, slots=True)
class ProvenanceResult:
    """One occurrence of a content.

    Attributes:
        content: the content's id.
        revision: the id of a revision that holds it.
        date: that revision's date, in UTC.
        origin: the URL of that revision's preferred origin; None if there is none or its URL is unknown.
        path: the content's path in the revision. A path that is joined of two may have more than 4096 bytes.
    """

    content: Id
    revision: Id
    date: datetime
    origin: str | None
    path: bytes
