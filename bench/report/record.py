"""The results as JSON: every run, and the figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.report.goals import goals
from bench.report.results import Results, Written, cpu_s_per_million, percentile, rate, ratio
from bench.subjects import GATEWAY

_PERCENTS = (50, 99)
# Microseconds.
_DIGITS_OF_MS = 3


def save(results: Results, path: Path) -> None:
    """Writes the results to a file; makes its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recorded(results), indent=1) + "\n", encoding="utf-8")


def recorded(results: Results) -> dict[str, Any]:
    """Returns the results and figures as `save` writes them."""
    return asdict(results) | {
        "latencies": [
            {
                **asdict(latency),
                "taken_ms": [round(each, _DIGITS_OF_MS) for each in latency.taken_ms],
                **{f"p{percent}_ms": percentile(latency.taken_ms, percent) for percent in _PERCENTS},
            }
            for latency in results.latencies
        ],
        "figures": {written.name: _figures(written) for written in results.written},
        "goals": [asdict(goal) for goal in goals(results)],
    }


def _figures(written: Written) -> dict[str, Any]:
    return {
        subject: {
            "entries_per_s": rate(written.of(subject)),
            "gateway_rate_by_this": ratio(written.runs, GATEWAY, subject),
            "cpu_s_per_million": cpu_s_per_million(written.of(subject)),
        }
        for subject in dict.fromkeys(run.subject for run in written.runs)
    }
