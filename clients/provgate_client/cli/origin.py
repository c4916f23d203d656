"""The origin of a repository, where nobody names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

_REMOTE: Final = "origin"
_WEB: Final = ("http", "https", "ftp", "ftps")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://.", re.IGNORECASE)

# A slash before the first colon makes it a path, and a second colon the name of a remote helper (gitremote-helpers).
_SCP: Final = re.compile(r"(?P<host>([^/:@\[\]]+@)?(\[[^/\[\]]+\]|[^/:@\[\]]+)):(?P<path>[^:].*)")


def default_origin(repository: Path, any_owner: bool) -> tuple[str, str]:
    """Returns the URL that stands for a repository, and what it was made of.

    That is the URL of its remote `origin`, else the file:// URL of its absolute path.

    Raises:
        RepositoryError: the repository cannot be read.
        GitReaderMissingError: the extra `provgate[git]` is not installed.
    """
    from provgate_client.git.repository import GitRepository

    with GitRepository(repository, any_owner=any_owner) as opened:
        remote = opened.remote_url(_REMOTE)
    own = repository.resolve().as_uri()
    if not remote:
        return own, f"the repository has no remote {_REMOTE!r}"
    url = url_of_remote(remote)
    if url is None:
        return own, f"the repository's remote {_REMOTE!r} is no URL"
    return url, f"the repository's remote {_REMOTE!r}"


def url_of_remote(remote: str) -> str | None:
    """Returns a remote as a URL without secrets; None where it is a local path, which names nothing on other machines.

    The short form of ssh, `user@host:path` (git-clone, "GIT URLS"), becomes an ssh:// URL, so that a repository has one
    origin however its remote is written. Of a web address user and password are left out, of others the password.
    """
    if _URL.match(remote):
        try:
            parts = urlsplit(remote)
        except ValueError:
            # A bracket without its other half.
            return None
        user_info, _, host = parts.netloc.rpartition("@")
        user = "" if parts.scheme in _WEB else user_info.partition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host))
    short = _SCP.fullmatch(remote)
    if short is None:
        return None
    return f"ssh://{short['host']}/{quote(short['path'].removeprefix('/'), safe='/~!$&()*+,;=:@')}"
