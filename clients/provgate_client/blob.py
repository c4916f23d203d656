"""The id that git gives to a file.

https://git-scm.com/book/en/v2/Git-Internals-Git-Objects: the SHA-1 of "blob ", the size in decimal, NUL, and the bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from provgate_storage.model import Id

_CHUNK_BYTES: Final = 1024 * 1024


class BlobError(OSError):
    """A path has no blob, or its file changed while it was read."""


def blob_id(path: Path) -> Id:
    """Returns the id of the blob that git would store for `path`, in bounded memory.

    For a symbolic link that is the id of the text that it holds, as in a git tree; it is not followed. No filter of a
    repository (line ends, LFS) is applied.

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
    return _file_id(path)


def _file_id(path: Path) -> Id:
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
