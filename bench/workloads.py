"""The writes that are measured: calls of new entries, by how many and of what."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Final

from bench import loads
from bench.clients import Make
from bench.loads import Write
from bench.rounds import Workload
from bench.subjects import DIRECT, GATEWAY, GATEWAYS, HABITS, LIMIT
from provgate_storage import RelationType

_ALL: Final = (GATEWAY, DIRECT, LIMIT, HABITS)
_THREE: Final = (GATEWAY, DIRECT, LIMIT)

Maker = Callable[[random.Random, int], Write]

CONTENTS: Final = "contents"
RELATIONS: Final = "relations"


def one_call(make: Maker, count: int, source: random.Random) -> list[Write]:
    """One call of so many entries."""
    return [make(source, count)]


def _calls(make: Maker, count: int) -> Make:
    return partial(one_call, make, count)


def _relation(name: str, relation: RelationType) -> Workload:
    make = _calls(partial(loads.relations, relation), 100_000)
    return Workload(name, f"relation_add {relation}, 100,000 new", make, _ALL)


def _at_once(clients: int) -> Workload:
    make = _calls(loads.contents, 100_000 // clients)
    title = f"content_add, {clients} clients, 100,000 new together"
    return Workload(f"clients-{clients}", title, make, _THREE, clients=clients)


_CONTENTS_MADE: Final = _calls(loads.contents, 100_000)

WRITES: Final = (
    Workload(CONTENTS, "content_add, 100,000 new", _CONTENTS_MADE, _ALL),
    Workload("contents-again", "content_add, the same 100,000 again", _CONTENTS_MADE, _ALL, again=True),
    Workload("contents-10k", "content_add, 10,000 new", _calls(loads.contents, 10_000), _ALL, rounds=15),
    Workload(
        "contents-1m", "content_add, 1,000,000 new", _calls(loads.contents, 1_000_000), _THREE, rounds=2, warms_up=False
    ),
    Workload("directories", "directory_add, 100,000 new", _calls(loads.directories, 100_000), _ALL),
    Workload("locations", "location_add, 20,000 new", _calls(loads.locations, 20_000), _ALL, rounds=10),
    Workload("origins", "origin_add, 10,000 new", _calls(loads.origins, 10_000), _ALL, rounds=10),
    Workload("revisions", "revision_add, 50,000 new", _calls(loads.revisions, 50_000), _ALL),
    _relation(RELATIONS, RelationType.CNT_EARLY_IN_REV),
    *(_relation(relation.replace("_", "-"), relation) for relation in [*RelationType][1:]),
    _at_once(4),
    _at_once(16),
    Workload(
        "two-gateways",
        "content_add, 2 clients, 100,000 new together",
        _calls(loads.contents, 50_000),
        (GATEWAY, GATEWAYS),
        clients=2,
    ),
)
"""The writes of new entries, in the order of the table."""
