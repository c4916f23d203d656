"""What the programs log, as those read it who run them."""

from __future__ import annotations

from provgate_stack.stack import Stack
from tests.support.gateway_calls import connected, contents, outcome_of, wait_serving
from tests.support.programs import records_of, start_logging_json


def test_all_processes_log_json(bare_stack: Stack) -> None:
    start_logging_json(bare_stack)
    with connected(bare_stack.address) as (channel, stub):
        wait_serving(channel)
        assert outcome_of(stub.ContentAdd(iter([contents(3)]), timeout=20)).ok
    for program in (*bare_stack.gateways, *bare_stack.workers):
        assert program.terminate() == 0
        records = records_of(program.log_path)
        for record in records:
            assert list(record)[:6] == ["time", "level", "logger", "process", "action", "message"]
        processes = {record["process"] for record in records}
        # The workers' program, and both of its processes.
        assert len(processes) == (1 if program in bare_stack.gateways else 3)
