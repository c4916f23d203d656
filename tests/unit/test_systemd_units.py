"""The systemd units of docs/systemd."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from provgate_gateway.settings import GatewaySettings

UNITS = sorted((Path(__file__).resolve().parents[2] / "docs" / "systemd").glob("*.service"))
INSTALLED = "/opt/provgate/bin"


def service(unit: Path) -> dict[str, str]:
    # A key may be there several times; the last one counts here.
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read_string(unit.read_text(encoding="utf-8"))
    return dict(parser["Service"])


def test_there_is_a_unit_for_each_program() -> None:
    assert [unit.stem for unit in UNITS] == ["provgate-gateway", "provgate-workers"]


def test_programs_are_there_and_have_time_to_end() -> None:
    grace_s = next(field.default for field in msgspec.structs.fields(GatewaySettings) if field.name == "grace_s")
    for unit in UNITS:
        settings = service(unit)
        program = settings["ExecStart"].split()[0]
        assert Path(program).parent == Path(INSTALLED)
        assert (Path(sys.executable).parent / Path(program).name).is_file()
        assert int(settings["TimeoutStopSec"]) > grace_s
        assert settings["NoNewPrivileges"] == "yes"


def test_systemd_finds_no_fault_where_it_is_installed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    for unit in UNITS if analyze else ():
        here = tmp_path / unit.name
        here.write_text(unit.read_text("utf-8").replace(INSTALLED, str(Path(sys.executable).parent)), encoding="utf-8")
        command = [str(analyze), "verify", "--man=no", str(here)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
