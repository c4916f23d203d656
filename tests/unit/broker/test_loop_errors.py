"""What the event loop logs of errors in callbacks."""

from __future__ import annotations

import asyncio

import pytest

from provgate_broker.loop_errors import tell_network_errors_shortly


@pytest.mark.parametrize(("error", "with_traceback"), [(OSError("gone"), False), (RuntimeError("a fault"), True)])
def test_network_errors_are_one_line(caplog: pytest.LogCaptureFixture, error: Exception, with_traceback: bool) -> None:
    def fail() -> None:
        raise error

    async def run() -> None:
        tell_network_errors_shortly()
        asyncio.get_running_loop().call_soon(fail)
        # Callbacks are run in their order.
        await asyncio.sleep(0)

    asyncio.run(run())
    (record,) = caplog.records
    assert bool(record.exc_info) is with_traceback
    assert str(error) in caplog.text
