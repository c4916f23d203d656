"""An event loop that turns, and one that is held up, seen from another thread."""

from __future__ import annotations

import asyncio
import threading

from provgate_runtime.watch.conditions import Heartbeat
from tests.unit.workers.eventually import until


def test_a_loop_that_is_held_up_is_late_until_it_turns_again() -> None:
    heartbeat = Heartbeat(late_after_s=0.2)
    release = threading.Event()
    seen: list[str | None] = []

    def watch() -> None:
        while heartbeat.conditions()[0].holds:
            threading.Event().wait(0.01)
        seen.append(heartbeat.conditions()[0].problem)
        release.set()

    async def main() -> None:
        beating = asyncio.create_task(heartbeat.run())
        await until(lambda: heartbeat.conditions()[0].holds)
        watching = threading.Thread(target=watch)
        watching.start()
        # The loop does nothing else meanwhile.
        assert release.wait(10)
        watching.join()
        await until(lambda: heartbeat.conditions()[0].holds)
        beating.cancel()

    asyncio.run(main())
    assert "has been blocked for" in str(seen[0])
