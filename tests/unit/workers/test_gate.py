from __future__ import annotations

import asyncio

import pytest

from provgate_storage.errors import StorageFullError, StorageUnavailableError
from provgate_workers.store.circuit_breaker import StorageGate

AWAY = StorageUnavailableError("away")


def test_trouble_of_one_closes_the_gate_for_all_and_is_told_once() -> None:
    gate = StorageGate()
    admitted = [gate.admits(7)]
    assert [gate.note_trouble(AWAY), gate.note_trouble(AWAY)] == [True, False]
    gate.note_success()
    admitted.append(gate.admits(0))
    assert admitted == [True, False]
    assert not gate.is_open


def test_a_single_write_is_tried_and_opens_the_gate() -> None:
    async def test() -> None:
        gate = StorageGate()
        gate.note_trouble(AWAY)
        verdict = gate.begin_trial()
        assert gate.admits(0)
        assert not gate.admits(1)
        gate.note_success()
        await verdict
        assert gate.is_open

    asyncio.run(test())


def test_a_write_in_trouble_on_trial_closes_it_again() -> None:
    async def test() -> None:
        gate = StorageGate()
        gate.note_trouble(AWAY)
        verdict = gate.begin_trial()
        assert not gate.note_trouble(StorageFullError("full"))
        with pytest.raises(StorageFullError):
            await verdict
        assert not gate.admits(0)
        verdict = gate.begin_trial()
        gate.note_success()
        await verdict

    asyncio.run(test())
