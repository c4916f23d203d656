"""Values as documents hold them.

Ids and paths are BSON binary, which pymongo gives back as bytes. A date is a 64-bit integer, the microseconds since
1970-01-01 UTC: a BSON date has milliseconds. A date or an origin that is not known is a field that is not there, so
that `$min` sets it; null is less than every number.
"""

from __future__ import annotations

import hashlib

from provgate_storage.model import Id, Path


def location_key(path: Path) -> bytes:
    """Returns the key of a location: its id, whose first byte is its range, and the path's SHA-256.

    The id alone will not do: whoever finds two paths with one SHA-1 would have one of them lost.
    """
    return hashlib.sha1(path, usedforsecurity=False).digest() + hashlib.sha256(path).digest()


def relation_key(src: Id, dst: Id, path: Path | None = None) -> bytes:
    """Returns the key of a row of a relation: both ids, and the path's SHA-256 where there is one.

    Keys of one relation are of one length: BSON orders binary values by their length first.
    """
    return src + dst if path is None else src + dst + hashlib.sha256(path).digest()
