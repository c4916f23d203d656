"""The workloads: writes of new entries, by kind and number."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.measure.rounds import Workload
from bench.subjects import DIRECT, GATEWAY, GATEWAYS, HABITS, LIMIT
from bench.writes import loads
from bench.writes.loads import Write
from provgate_storage import RelationType

_ALL: Final = (GATEWAY, DIRECT, LIMIT, HABITS)
_THREE: Final = (GATEWAY, DIRECT, LIMIT)

Maker = Callable[[random.Random, int], Write]

CONTENTS: Final = "contents"
RELATIONS: Final = "relations"
TEN_THOUSAND: Final = "contents-10k"
MILLION: Final = "contents-1m"

EMPTY: Final = {CONTENTS: "contents-of-0", RELATIONS: "relations-of-0"}
LARGE: Final = {CONTENTS: "contents-of-2m", RELATIONS: "relations-of-2m"}
"""The names of the same writes into empty tables, and into tables of 2,000,000 rows."""


def one_call(make: Maker, source: random.Random, count: int) -> list[Write]:
    """Returns one call of `count` entries."""
    return [make(source, count)]


_CONTENTS: Final = partial(one_call, loads.contents)
_RELATIONS: Final = partial(one_call, partial(loads.relations, RelationType.CNT_EARLY_IN_REV))


def _relation(name: str, relation: RelationType) -> Workload:
    make = partial(one_call, partial(loads.relations, relation))
    return Workload(name, f"relation_add {relation}", make, 100_000, _ALL)


def _at_once(clients: int) -> Workload:
    title = f"content_add, {clients} clients at once"
    return Workload(f"clients-{clients}", title, _CONTENTS, 100_000, _THREE, clients=clients)


WRITES: Final = (
    Workload(CONTENTS, "content_add", _CONTENTS, 100_000, _ALL),
    Workload("contents-again", "content_add, the same again", _CONTENTS, 100_000, _ALL, again=True),
    Workload(TEN_THOUSAND, "content_add", _CONTENTS, 10_000, _ALL, rounds=15),
    Workload(MILLION, "content_add", _CONTENTS, 1_000_000, _THREE, rounds=2, warms_up=False),
    Workload("directories", "directory_add", partial(one_call, loads.directories), 100_000, _ALL),
    Workload("locations", "location_add", partial(one_call, loads.locations), 20_000, _ALL, rounds=10),
    Workload("origins", "origin_add", partial(one_call, loads.origins), 10_000, _ALL, rounds=10),
    Workload("revisions", "revision_add", partial(one_call, loads.revisions), 50_000, _ALL),
    _relation(RELATIONS, RelationType.CNT_EARLY_IN_REV),
    *(_relation(relation.replace("_", "-"), relation) for relation in [*RelationType][1:]),
    _at_once(4),
    _at_once(16),
    Workload("two-gateways", "content_add, 2 clients at once", _CONTENTS, 100_000, (GATEWAY, GATEWAYS), clients=2),
)
"""The writes of new entries, in the order of the table."""

# Tables grow: SecantusDB takes longer to empty them than to fill them.
_mongodb = partial(Workload, entries=20_000, subjects=(GATEWAY, DIRECT), grows=True)

MONGODB_WRITES: Final = (
    _mongodb("mongodb-contents", "MongoDB: content_add", _CONTENTS),
    _mongodb("mongodb-relations", "MongoDB: relation_add content_in_revision", _RELATIONS),
)
"""The writes on MongoDB."""
