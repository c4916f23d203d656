"""Findings, exit codes and clocks of the doctor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from provgate_operations.doctor.database import DatabaseFacts, clock_offset_s, database_findings
from provgate_operations.doctor.findings import Finding, Severity, broken, exit_code, ok, skipped, warning
from provgate_storage.database.local import StorageFacts

ASKED = datetime(2026, 1, 2, tzinfo=UTC)
ANSWERED = ASKED + timedelta(seconds=1)

OK, SKIPPED = ok("a", "is well"), skipped("b", "is not there")
WARNING, BROKEN = warning("c", "is low", "why", "do"), broken("d", "is gone", "why", "do")


@pytest.mark.parametrize(
    ("findings", "code"),
    [([], 0), ([OK, SKIPPED], 0), ([OK, WARNING, SKIPPED], 1), ([BROKEN, OK, WARNING], 2)],
)
def test_the_worst_finding_is_the_exit_code(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


@pytest.mark.parametrize(("database_s", "offset_s"), [(0.5, 0), (0, 0), (1, 0), (4, 3), (-2, -2)])
def test_what_the_round_trip_explains_is_no_offset(database_s: float, offset_s: float) -> None:
    assert clock_offset_s(ASKED, ASKED + timedelta(seconds=database_s), ANSWERED) == offset_s


@pytest.mark.parametrize(
    ("offset_s", "severity"),
    [(0, "ok"), (2, "ok"), (-3, "warning"), (60, "warning"), (61, "broken"), (-3600, "broken")],
)
def test_a_clock_that_is_off(offset_s: float, severity: str) -> None:
    facts = DatabaseFacts(StorageFacts("PostgreSQL 15", ASKED, ()), None, None, offset_s)
    (found,) = (finding for finding in database_findings("here", facts, None) if finding.check == "clock")
    assert found.severity is Severity(severity)
