"""Prometheus itself reads the rules of docs/alerts.yml, and each alert fires where it should and nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from provgate_stack.servers.installed import promtool_program

RULES = Path(__file__).resolve().parents[2] / "docs" / "alerts.yml"
SAMPLES = Path(__file__).resolve().parents[1] / "data" / "alerts_test.yml"


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([promtool_program(), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_rules() -> None:
    promtool("check", "rules", RULES)


def test_alerts_fire_at_the_samples_where_they_should() -> None:
    promtool("test", "rules", SAMPLES)


def test_of_every_alert_there_are_samples_at_which_it_fires_and_at_which_it_does_not() -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    tried = [each for test in yaml.safe_load(SAMPLES.read_text("utf-8"))["tests"] for each in test["alert_rule_test"]]
    names = {rule["alert"] for group in groups for rule in group["rules"]}
    assert {each["alertname"] for each in tried if each.get("exp_alerts")} == names
    assert {each["alertname"] for each in tried if not each.get("exp_alerts")} == names
