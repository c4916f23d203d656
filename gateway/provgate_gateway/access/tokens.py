"""Bearer tokens, and the file that holds their hashes.

A line of the file is `<name> <role> <SHA-256 of the token, in hex>`; an empty line, and one that starts with `#`, says
nothing. A name may have several lines with one role, so that its token can be replaced without a pause. A file of no
bytes is wrong: that is one that is just being written anew, and to let nobody in until it is would end calls for good.

A token is 256 random bits, not a password that somebody chose: it cannot be guessed from its hash, however fast that
is, and a slow one would only cost every call its time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

from provgate_gateway.access.roles import Role
from provgate_runtime import ConfigurationError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Mark: TypeAlias = tuple[int, int, int] | None
"""Modification time in nanoseconds, size and inode of a file; None where there is none."""


class WatchedFiles(Generic[T]):
    """What some files say together, asked for again and again. Thread-safe.

    It owns the last good value, and the marks that the files had before they were last read: one that changes while it
    is read is read again at the next turn. Files that are missing or wrong leave the value as it is, and are logged as
    an error, once for each state of them.

    Args:
        files: their paths.
        read: reads and checks them. Raises `ConfigurationError`.

    Raises:
        ConfigurationError: they cannot be read, or are wrong, now.
    """

    def __init__(self, files: Sequence[str], read: Callable[[], T]) -> None:
        self._files = files
        self._read = read
        self._lock = threading.Lock()
        self._marks = self._marks_now()
        self._value = read()

    def current(self) -> T:
        """Returns what the files say now, the same object for as long as they do not change."""
        with self._lock:
            marks = self._marks_now()
            if marks != self._marks:
                self._marks = marks
                self._read_again()
            return self._value

    def _read_again(self) -> None:
        try:
            self._value = self._read()
        except ConfigurationError as error:
            extra = {"action": "files.read", "state": "failing", "reason": error.message}
            logger.error("%s; what was read before stays in force", error.message, extra=extra)
        else:
            files = ", ".join(self._files)
            logger.info("read again: %s", files, extra={"action": "files.read", "state": "working", "files": files})

    def _marks_now(self) -> list[_Mark]:
        return [_mark(file) for file in self._files]


def _mark(file: str) -> _Mark:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


_TOKEN_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/+=-]{0,127}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ROLES: Final = {role.value: role for role in Role}


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A line of the file.

    Attributes:
        name: of who has the token.
        role: what they may do.
        digest: the SHA-256 of the token, in hex.
    """

    name: str
    role: Role
    digest: str

    def __str__(self) -> str:
        return f"{self.name} {self.role.value} {self.digest}"


def new_token() -> str:
    """Returns a token of 256 random bits, as text of 43 letters."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Returns the hash of a token, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_name(text: str) -> bool:
    """Returns whether `text` may be the name of who has a token."""
    return _NAME.fullmatch(text) is not None


def read_token_file(file: str) -> list[TokenLine]:
    """Returns the lines of a file.

    Raises:
        ConfigurationError: it cannot be read, is empty, or a line is not as it should be. The text has its number, not
            the line, in which somebody may have put a token.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: the file of tokens cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: the file of tokens is not UTF-8") from error
    if not text:
        raise ConfigurationError(f"{file}: the file of tokens is empty; one without tokens has a comment")
    numbered = enumerate(text.splitlines(), start=1)
    lines = [_line(words, f"{file}:{number}") for number, words in _said(numbered)]
    _check_roles(lines, file)
    return lines


def holder_of(token: str, lines: list[TokenLine]) -> TokenLine | None:
    """Returns the line of a token, None where there is none. How long it takes does not depend on what is in them."""
    digest = digest_of(token)
    found = None
    for line in lines:
        if hmac.compare_digest(line.digest, digest):
            found = line
    return found


def _said(numbered: enumerate[str]) -> list[tuple[int, list[str]]]:
    return [(number, line.split()) for number, line in numbered if line.strip() and not line.lstrip().startswith("#")]


def _line(words: list[str], place: str) -> TokenLine:
    if len(words) != 3:
        raise ConfigurationError(f"{place}: a line is <name> <role> <SHA-256 of the token in hex>")
    name, role, digest = words
    if not is_name(name):
        raise ConfigurationError(f"{place}: a name is up to 128 letters, digits and ._@:/+=-")
    if role not in _ROLES:
        raise ConfigurationError(f"{place}: a role is one of {', '.join(_ROLES)}")
    if not _DIGEST.fullmatch(digest.lower()):
        raise ConfigurationError(f"{place}: a hash is 64 hexadecimal digits")
    return TokenLine(name, _ROLES[role], digest.lower())


def _check_roles(lines: list[TokenLine], file: str) -> None:
    roles: dict[str, Role] = {}
    for line in lines:
        if roles.setdefault(line.name, line.role) is not line.role:
            raise ConfigurationError(f"{file}: {line.name} has two roles")
