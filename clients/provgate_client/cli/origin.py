"""The origin of a repository, where nobody names it."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_REMOTE: Final = "origin"
_WITH_USER_INFO: Final = ("http", "https", "ftp", "ftps")


def default_origin(repository: Path, any_owner: bool) -> tuple[str, str]:
    """Returns the URL that stands for a repository, and what it was made of.

    That is the URL of its remote `origin`, without user and password, else the file:// URL of its absolute path.

    Raises:
        RepositoryError: the repository cannot be read.
        GitReaderMissingError: the extra `provgate[git]` is not installed.
    """
    from provgate_client.git.repository import GitRepository

    with GitRepository(repository, any_owner=any_owner) as opened:
        remote = opened.remote_url(_REMOTE)
    if remote:
        return without_user_info(remote), f"the repository's remote {_REMOTE!r}"
    return repository.resolve().as_uri(), "the repository has no remote 'origin'"


def without_user_info(url: str) -> str:
    """Returns `url` without the user and password of a web address: they are nobody's business who asks the index."""
    parts = urlsplit(url)
    if parts.scheme not in _WITH_USER_INFO:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
