"""Ids as text (hexadecimal, SWHID, base64), and the ids that git gives to files.

SWHIDs are those of https://www.swhid.org/specification/, version 1; `swh:1:ori:` is Software Heritage's extension for
origins. gRPC tools such as grpcurl print and read bytes in base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final

from provgate_storage.model import EntityType, Id
from provgate_storage.rows.values import ID_BYTES

_HEX: Final = re.compile(r"[0-9a-fA-F]{40}")
_SWHID: Final = re.compile(r"swh:1:([a-z]{3}):([0-9a-f]{40})(;.*)?", re.DOTALL)

SWHID_TAGS: Final = {
    EntityType.CONTENT: "cnt",
    EntityType.DIRECTORY: "dir",
    EntityType.REVISION: "rev",
    EntityType.ORIGIN: "ori",
}


class IdentifierError(ValueError):
    """A text is not an id of the expected type. The message is for the user."""


def is_identifier(text: str) -> bool:
    """Returns whether `text` looks like an id: 40 hexadecimal digits, or a text that starts like a SWHID."""
    return text.startswith("swh:") or _HEX.fullmatch(text) is not None


def parse_identifier(text: str, entity: EntityType) -> Id:
    """Returns the id in `text`: in hexadecimal, or a SWHID of the given type, whose qualifiers (`;...`) are ignored.

    Raises:
        IdentifierError: `text` is neither, or a SWHID of another type.
    """
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    tag = SWHID_TAGS[entity]
    match = _SWHID.fullmatch(text)
    if match is None:
        raise IdentifierError(f"{text!r} is not an id: write 40 hexadecimal digits, or swh:1:{tag}: and 40 digits")
    if match[1] != tag:
        raise IdentifierError(f"{text!r} is not of type {entity}: such a SWHID starts with swh:1:{tag}:")
    return bytes.fromhex(match[2])


def entity_of_swhid(text: str) -> EntityType | None:
    """Returns the type of a SWHID; None if `text` is not a SWHID, or the index has no such type."""
    match = _SWHID.fullmatch(text)
    return next((entity for entity, tag in SWHID_TAGS.items() if match and match[1] == tag), None)


def to_swhid(id: Id, entity: EntityType) -> str:
    """Returns the SWHID of an entity."""
    return f"swh:1:{SWHID_TAGS[entity]}:{id.hex()}"


def to_base64(id: Id) -> str:
    """Returns an id in base64."""
    return base64.b64encode(id).decode("ascii")


def from_base64(text: str) -> Id:
    """Returns the id in base64 in `text`.

    Raises:
        IdentifierError: `text` is not base64 of 20 bytes.
    """
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IdentifierError(f"{text!r} is not base64") from error
    if len(decoded) != ID_BYTES:
        raise IdentifierError(f"{text!r} is base64 of {len(decoded)} bytes instead of {ID_BYTES}")
    return decoded


_CHUNK_BYTES: Final = 1024 * 1024


class BlobError(OSError):
    """A path has no blob, or its file changed while it was read."""


def blob_id(path: Path) -> Id:
    """Returns the id of the blob that git stores for `path`, in bounded memory.

    It is the SHA-1 of "blob ", the size in decimal, NUL, and the bytes
    (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects). A symbolic link is not followed: its blob is the path
    that it holds. No filter of a repository (line ends, LFS) is applied.

    Raises:
        BlobError: `path` is neither a file nor a link, or the file changed while it was read.
        OSError: it cannot be read.
    """
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        target = os.fsencode(os.readlink(path))
        return _sha1(len(target), target).digest()
    if not stat.S_ISREG(mode):
        raise BlobError(f"{path} is neither a file nor a symbolic link")
    with path.open("rb") as file:
        size_bytes = remaining_bytes = os.fstat(file.fileno()).st_size
        digest = _sha1(size_bytes)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            remaining_bytes -= len(chunk)
    if remaining_bytes:
        raise BlobError(f"{path} changed while it was read")
    return digest.digest()


def _sha1(size_bytes: int, data: bytes = b"") -> hashlib._Hash:
    return hashlib.sha1(b"blob %d\0%b" % (size_bytes, data), usedforsecurity=False)
