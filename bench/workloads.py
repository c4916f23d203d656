"""The writes that are measured."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from bench import loads
from bench.loads import Write
from bench.rounds import Workload
from provgate_storage import RelationType

_ALL = ("gateway", "direct", "limit", "habits")


def one_call(make: Callable[[random.Random, int], Write], count: int, source: random.Random) -> list[Write]:
    """One call of so many entries."""
    return [make(source, count)]


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("contents", partial(one_call, loads.contents, 100_000)),
        Workload("relations", partial(one_call, partial(loads.relations, RelationType.CNT_EARLY_IN_REV), 100_000)),
    )
}
