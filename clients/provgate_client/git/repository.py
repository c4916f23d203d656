"""Reads a git repository. The only module that imports the git library."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from provgate_client.git.objects import Commit, Tree, parse_commit, parse_tag, parse_tree
from provgate_client.git.settings import (
    GitReaderMissingError,
    ObjectMissingError,
    RepositoryError,
    RepositoryOwnerError,
)
from provgate_storage.model import Id

try:
    import pygit2
    from pygit2.enums import ObjectType, ReferenceType, RepositoryOpenFlag
except ModuleNotFoundError as error:
    raise GitReaderMissingError("reading git repositories needs pygit2: pip install 'provgate[git]'") from error

_HEX_ID: Final = re.compile(r"[0-9a-f]{40}")

# A partial clone can be indexed: blobs are never read.
_EXTENSIONS: Final = ["partialclone"]

# The library's settings belong to the whole process; owner_validation is changed and restored.
_settings_lock = threading.Lock()


class GitRepository:
    """A repository, opened for reading. A context manager, for one thread.

    Replacements (refs/replace) are not followed: they give an id the parents and the tree of another object.
    """

    def __init__(self, path: Path, *, any_owner: bool = False) -> None:
        """Opens the repository at `path`: bare, or the top of a working tree.

        Raises:
            RepositoryOwnerError: it belongs to another user, and `any_owner` is false.
            RepositoryError: there is none, or its format is not supported (SHA-256, reftable).
        """
        self._repository = _open(path, any_owner)
        self._git_dir = Path(self._repository.path)
        self._common_dir = self._git_dir / _text(self._git_dir / "commondir").strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._repository.free()

    def heads(self) -> set[Id]:
        """Returns the commits that `git rev-list --all` starts at.

        These are the commits of every ref, through tags, and of the HEAD of every working tree. Refs to trees and blobs
        are left out.

        Raises:
            RepositoryError: a ref names an object that is missing.
        """
        names = [*self._refs(), *self._detached_heads()]
        return {commit for name, target in names if (commit := self._peel(name, target)) is not None}

    def remote_url(self, name: str) -> str | None:
        """Returns the URL of a remote as it is configured; None if there is none."""
        try:
            return self._repository.remotes[name].url
        except KeyError:
            return None

    def commit(self, commit_id: Id) -> Commit:
        """Returns a commit.

        Raises:
            ObjectMissingError: it is missing.
            RepositoryError: it cannot be read.
        """
        return parse_commit(self._read(commit_id, ObjectType.COMMIT))

    def tree(self, tree_id: Id) -> Tree:
        """Returns a tree. Raises as `commit` does."""
        return parse_tree(self._read(tree_id, ObjectType.TREE))

    def grafts(self) -> dict[Id, tuple[Id, ...]]:
        """Returns the commits whose history continues elsewhere than at their parents, and where it continues.

        These are the commits at the end of a shallow clone (nowhere), and those of info/grafts (gitrepository-layout).
        """
        grafts = {commit: parents for commit, *parents in _id_lines(self._common_dir / "info" / "grafts")}
        shallow = dict.fromkeys((line[0] for line in _id_lines(self._common_dir / "shallow")), ())
        return {commit: tuple(parents) for commit, parents in {**grafts, **shallow}.items()}

    def _refs(self) -> Iterator[tuple[str, Id]]:
        """Yields name and target of every ref but the symbolic ones, whose targets are refs themselves."""
        try:
            for ref in self._repository.references.iterator():
                if ref.type == ReferenceType.DIRECT:
                    yield ref.raw_name.decode(errors="replace"), pygit2.Oid(hex=str(ref.target)).raw
        except pygit2.GitError as error:
            raise RepositoryError(f"the refs cannot be read: {error}") from error

    def _detached_heads(self) -> Iterator[tuple[str, Id]]:
        """Yields the HEADs of all working trees that name a commit, not a ref."""
        for head in [self._common_dir / "HEAD", *self._common_dir.glob("worktrees/*/HEAD")]:
            text = _text(head).strip()
            if _HEX_ID.fullmatch(text):
                yield str(head.relative_to(self._common_dir)), bytes.fromhex(text)

    def _peel(self, name: str, target: Id) -> Id | None:
        """Returns the commit that a ref leads to, through tags; None if it leads to a tree or a blob."""
        try:
            kind, _ = self._repository.odb.read_header(pygit2.Oid(target))
            while kind == ObjectType.TAG:
                tag = parse_tag(self._read(target, ObjectType.TAG))
                if tag.target_type in ("tree", "blob"):
                    return None
                target = tag.target
                kind, _ = self._repository.odb.read_header(pygit2.Oid(target))
        except (KeyError, pygit2.GitError, RepositoryError) as error:
            raise RepositoryError(f"{name} leads to {target.hex()}, which cannot be read: {error}") from error
        return target if kind == ObjectType.COMMIT else None

    def _read(self, object_id: Id, kind: ObjectType) -> bytes:
        try:
            found, data = self._repository.odb.read(pygit2.Oid(object_id))
        except KeyError as error:
            raise ObjectMissingError(f"the {kind.name.lower()} {object_id.hex()} is missing") from error
        except pygit2.GitError as error:
            raise RepositoryError(f"the {kind.name.lower()} {object_id.hex()} cannot be read: {error}") from error
        if found != kind:
            raise RepositoryError(f"{object_id.hex()} is not a {kind.name.lower()}")
        return data


def _open(path: Path, any_owner: bool) -> pygit2.Repository:
    if not path.exists():
        raise RepositoryError(f"{path} does not exist")
    with _settings_lock:
        before = pygit2.settings.owner_validation
        pygit2.settings.set_extensions(_EXTENSIONS)
        # Every object is read once or kept by TreeCache. The library's own cache takes 200 MiB and saves no time.
        pygit2.settings.enable_caching(False)
        # The rule protects against programs in the repository. None is run here.
        pygit2.settings.owner_validation = before and not any_owner
        try:
            return pygit2.Repository(path, RepositoryOpenFlag.NO_SEARCH)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise _opening_error(path, str(error)) from error
        finally:
            pygit2.settings.owner_validation = before


def _opening_error(path: Path, message: str) -> RepositoryError:
    if "not owned" in message:
        full = path.resolve()
        return RepositoryOwnerError(
            f"{path} belongs to another user. `git config --global --add safe.directory {full}` trusts it always, "
            "--any-owner only this time"
        )
    if "object format" in message:
        return RepositoryError(f"{path} does not use SHA-1 ids, and the index has no others")
    if "not found" in message:
        return RepositoryError(f"{path} is not a git repository")
    return RepositoryError(f"{path} cannot be opened: {message}")


def _id_lines(path: Path) -> Iterator[list[Id]]:
    """Yields the ids on each line of a file; none if it does not exist."""
    for line in _text(path).splitlines():
        if line:
            try:
                yield [bytes.fromhex(word) for word in line.split()]
            except ValueError as error:
                raise RepositoryError(f"{path} is damaged: a line has something else than ids") from error


def _text(path: Path) -> str:
    """Returns the text of a file of the repository; empty if it does not exist."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RepositoryError(f"{path} cannot be read: {error.strerror}") from error
