"""Conditions that are set, and those of sources."""

from __future__ import annotations

from provgate_gateway.health.readiness import Readiness
from provgate_runtime.watch.conditions import Condition


def test_what_a_source_tells_takes_the_place_of_what_was_set() -> None:
    readiness = Readiness()
    readiness.set("stopping")
    readiness.set("broker", "not connected yet")
    assert readiness.conditions() == [Condition("stopping"), Condition("broker", "not connected yet")]
    now = [Condition("broker")]
    readiness.add(lambda: now)
    readiness.add(lambda: [Condition("alarm", "memory")])
    assert readiness.conditions() == [Condition("stopping"), Condition("broker"), Condition("alarm", "memory")]
    now[0] = Condition("broker", "lost")
    readiness.set("stopping", "told to")
    assert readiness.conditions()[:2] == [Condition("stopping", "told to"), Condition("broker", "lost")]
