"""The rules of indexing, a revision at a time and in the most obvious way: the rows and dates that must come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.git_repositories import Leaf, Node, paths, tree_id
from tests.unit.git.histories import Written


@dataclass
class ExpectedIndex:
    """Rows are (source, destination, path), dates are seconds."""

    content_in_revision: set[tuple[bytes, bytes, bytes]] = field(default_factory=set)
    content_in_directory: set[tuple[bytes, bytes, bytes]] = field(default_factory=set)
    directory_in_revision: set[tuple[bytes, bytes, bytes]] = field(default_factory=set)
    content_dates: dict[bytes, int] = field(default_factory=dict)
    directory_dates: dict[bytes, int] = field(default_factory=dict)
    revision_dates: dict[bytes, int] = field(default_factory=dict)

    def add(self, written: Written) -> None:
        """Adds a repository to what is indexed already."""
        for date, revision in sorted((date, revision) for revision, date in written.dates.items()):
            if revision not in self.revision_dates:
                self._descend(revision, date, written.trees[written.roots[revision]], b"")
                self.revision_dates[revision] = date

    def _descend(self, revision: bytes, date: int, node: Mapping[bytes, Node], prefix: bytes) -> None:
        # Directories first: what is decided on them must not depend on contents that this revision dates.
        for name, child in node.items():
            if not isinstance(child, Leaf) and paths(child):
                if self._is_frontier(child, date):
                    self._add_frontier(revision, date, child, prefix + name)
                else:
                    self._descend(revision, date, child, prefix + name + b"/")
        for name, child in node.items():
            for content, _ in paths({name: child}) if isinstance(child, Leaf) else ():
                self.content_in_revision.add((content, revision, prefix + name))
                self.content_dates[content] = self._known(content, date)

    def _is_frontier(self, node: Mapping[bytes, Node], date: int) -> bool:
        return self.directory_dates.get(tree_id(node), date) < date or self._max(node, date) < date

    def _add_frontier(self, revision: bytes, date: int, node: Mapping[bytes, Node], path: bytes) -> None:
        directory = tree_id(node)
        self.directory_in_revision.add((directory, revision, path))
        if directory not in self.directory_dates:
            self.directory_dates[directory] = self._max(node, date)
            self.content_in_directory |= {(content, directory, suffix) for content, suffix in paths(node)}

    def _max(self, node: Mapping[bytes, Node], date: int) -> int:
        return max(self._known(content, date) for content, _ in paths(node))

    def _known(self, content: bytes, date: int) -> int:
        return min(self.content_dates.get(content, date), date)
