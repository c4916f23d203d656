"""Bearer tokens, and the file with their hashes.

A line of the file is `<name> <role> <SHA-256 of the token, in hex>`. Empty lines and lines that start with `#` are
ignored. A name may have several lines with one role, so that its token can be replaced without interruption. An empty
file is invalid: it may be one that is being rewritten, and would lock every caller out.

A token is 256 random bits, not a password that a person chose: it cannot be guessed from its hash. A slow hash would
only slow each call down.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provgate_gateway.access.roles import Role
from provgate_runtime import ConfigurationError

_TOKEN_BYTES: Final = 32
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/+=-]{0,127}")
NAME_RULE: Final = "is up to 128 letters, digits and ._@:/+=-"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ROLES: Final = {role.value: role for role in Role}


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A line of the file.

    Attributes:
        name: the name of the token's holder.
        role: the holder's role.
        digest: the SHA-256 of the token, in hex.
    """

    name: str
    role: Role
    digest: str

    def __str__(self) -> str:
        return f"{self.name} {self.role.value} {self.digest}"


def new_token() -> str:
    """Returns a token of 256 random bits, as a text of 43 characters."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Returns the hash of a token, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def holder_of(token: str, lines: list[TokenLine]) -> TokenLine | None:
    """Returns the line of a token, or None. The time that it takes does not depend on the content of the lines."""
    digest = digest_of(token)
    found = None
    for line in lines:
        if hmac.compare_digest(line.digest, digest):
            found = line
    return found


def read_token_file(file: str) -> list[TokenLine]:
    """Returns the lines of a file.

    Raises:
        ConfigurationError: the file cannot be read or is empty, or a line is invalid. The text has the number of the
            line and does not quote it, since it may hold a token.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: the file of tokens cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: the file of tokens is not UTF-8") from error
    if not text:
        raise ConfigurationError(f"{file}: the file of tokens is empty; one without tokens has a comment")
    lines = []
    roles: dict[str, Role] = {}
    for number, content in enumerate(text.splitlines(), start=1):
        if not content.strip() or content.lstrip().startswith("#"):
            continue
        line = _parse_line(content.split(), f"{file}:{number}")
        if roles.setdefault(line.name, line.role) is not line.role:
            raise ConfigurationError(f"{file}: {line.name} has two roles")
        lines.append(line)
    return lines


def _parse_line(words: list[str], place: str) -> TokenLine:
    if len(words) != 3:
        raise ConfigurationError(f"{place}: a line is <name> <role> <SHA-256 of the token in hex>")
    name, role, digest = words
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{place}: a name {NAME_RULE}")
    if role not in _ROLES:
        raise ConfigurationError(f"{place}: a role is one of {', '.join(_ROLES)}")
    if not _DIGEST.fullmatch(digest.lower()):
        raise ConfigurationError(f"{place}: a hash is 64 hexadecimal digits")
    return TokenLine(name, _ROLES[role], digest.lower())
