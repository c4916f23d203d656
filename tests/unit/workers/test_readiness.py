"""What is told of a worker program, from what its processes report."""

from __future__ import annotations

from provgate_runtime.watch.conditions import LATE_AFTER_S
from provgate_workers.program.messages import ChildReport
from provgate_workers.program.readiness import ProgramReadiness

GOOD = ChildReport(registered=True)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def problems(readiness: ProgramReadiness) -> dict[str, str]:
    return {condition.name: condition.problem for condition in readiness.ready() if condition.problem is not None}


def running(count: int = 2, clock: Clock | None = None) -> ProgramReadiness:
    readiness = ProgramReadiness(count, clock or Clock())
    readiness.prepared()
    for number in range(count):
        readiness.started(number)
        readiness.reported(number, GOOD)
    return readiness


def test_it_is_ready_when_all_processes_are() -> None:
    readiness = ProgramReadiness(2)
    assert set(problems(readiness)) == {"preparation", "process_0", "process_1"}
    readiness.waits("the broker cannot be used yet: refused")
    assert problems(readiness)["preparation"] == "the broker cannot be used yet: refused"
    assert problems(running()) == {}


def test_what_a_process_lacks_is_named_with_its_number() -> None:
    readiness = running()
    readiness.reported(0, ChildReport(True, "no connection for replies", "it is away"))
    readiness.reported(1, ChildReport(True, None, "it is away"))
    assert problems(readiness) == {
        "broker": "process 0: no connection for replies",
        "storage": "process 0: it is away; process 1: it is away",
    }


def test_one_that_has_ended_is_told_once() -> None:
    readiness = running()
    readiness.reported(1, ChildReport(True, "no connection for deliveries"))
    readiness.ended(1)
    assert set(problems(readiness)) == {"process_1"}
    readiness.started(1)
    assert set(problems(readiness)) == {"process_1", "storage"}


def test_one_that_is_silent_is_not_alive() -> None:
    clock = Clock()
    readiness = running(clock=clock)
    clock.now_s += LATE_AFTER_S + 1
    readiness.reported(0, GOOD)
    assert {each.name: each.holds for each in readiness.alive()} == {
        "process_0_reports": True,
        "process_1_reports": False,
    }
    # Nobody waits for one that has ended: the supervisor starts it again.
    readiness.ended(1)
    assert [each.name for each in readiness.alive()] == ["process_0_reports"]


def test_a_program_that_stops_is_not_ready() -> None:
    readiness = running()
    readiness.stopping()
    assert set(problems(readiness)) == {"stopping"}


def test_a_report_goes_through_a_pipe_at_once() -> None:
    worst = ChildReport(False, "\x01" * 5000, "\U0010ffff" * 5000)
    line = worst.line()
    assert len(line) <= 4096
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert not ChildReport.of_line(line).registered
    assert ChildReport.of_line(GOOD.line()) == GOOD
