"""What `provgate doctor` says of a stack."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack


@dataclass(frozen=True)
class Diagnosis:
    """What it printed.

    Attributes:
        exit_code: the program's.
        findings: as JSON has them.
        text: all that it wrote.
    """

    exit_code: int
    findings: list[dict[str, Any]]
    text: str

    def of(self, check: str, severity: str = "broken") -> list[str]:
        """Returns what was found by a check, of one severity."""
        return [found["what"] for found in self.findings if (found["check"], found["severity"]) == (check, severity)]

    @property
    def amiss(self) -> set[str]:
        """The checks that found something wrong."""
        return {found["check"] for found in self.findings if found["severity"] in ("warning", "broken")}


def run_doctor(stack: Stack, config: Path | None = None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    command = [program_path("provgate"), "doctor", *(["--config", str(config)] if config else []), *arguments]
    return subprocess.run(
        command, env=stack.client_environment(), capture_output=True, text=True, timeout=90, check=False
    )


def diagnosis(stack: Stack, config: Path | None = None) -> Diagnosis:
    """Runs the command with `--format json`, by the stack's configuration where none is given."""
    done = run_doctor(stack, config, "--format", "json")
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode
    for found in told["findings"]:
        is_amiss = found["severity"] in ("warning", "broken")
        assert bool(found["why"]) == bool(found["remedy"]) == is_amiss
    return Diagnosis(done.returncode, told["findings"], done.stdout)


def config_of(stack: Stack, path: Path, **sections: dict[str, Any] | None) -> Path:
    """Writes the stack's configuration with settings of some sections laid over it, or without them where None."""
    document = yaml.safe_load(stack.config.read_text())["provenance"]
    for name, section in sections.items():
        if section is None:
            del document[name]
        else:
            document[name] = {**document.get(name, {}), **section}
    config = path / "doctor.yaml"
    config.write_text(yaml.safe_dump({"provenance": document}))
    return config
