"""Trees that were read lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from provgate_client.git.objects import Tree
from provgate_storage.model import Id


class TreeCache:
    """Reads trees, and keeps those used last while they have at most `entries_max` entries together.

    Entries are counted, not trees: one tree may have a hundred thousand. A tree larger than the bound is kept alone.
    """

    def __init__(self, read: Callable[[Id], Tree], entries_max: int) -> None:
        self._read = read
        self._entries_max = entries_max
        self._entries_count = 0
        self._trees: OrderedDict[Id, Tree] = OrderedDict()

    def __call__(self, tree_id: Id) -> Tree:
        """Returns a tree; raises what reading it raises."""
        tree = self._trees.get(tree_id)
        if tree is not None:
            self._trees.move_to_end(tree_id)
            return tree
        tree = self._read(tree_id)
        self._trees[tree_id] = tree
        self._entries_count += _size(tree)
        while self._entries_count > self._entries_max and len(self._trees) > 1:
            self._entries_count -= _size(self._trees.popitem(last=False)[1])
        return tree


def _size(tree: Tree) -> int:
    return 1 + len(tree.contents) + len(tree.directories)
