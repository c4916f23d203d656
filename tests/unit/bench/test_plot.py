from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from bench.report.plot import plot
from tests.unit.bench.runs import results_of, run, written


def test_the_picture_names_workloads_subjects_and_roles(tmp_path: Path) -> None:
    path = tmp_path / "made" / "writes.svg"
    runs = [run("gateway", 1, 0.5, client=0.001, database=0.002), run("limit", 1, 0.25, client=0.001)]
    plot(results_of(written("contents", *runs)), path)
    texts = {element.text for element in ElementTree.parse(path).iter() if element.text and element.text.strip()}
    assert {"title of contents", "1,000", "gateway", "limit", "client", "database"} <= texts
    assert "habits" not in texts
