"""`make check-protos` fails if a change of the protos breaks the clients of the last release, committed or not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[3]
SERVICE = "provenance_storage.proto"
Change = Callable[[str], str]


def breaking(clone: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([clone / "stack" / "check_breaking.sh"], capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The part of a clone that the check looks at, of which every change is committed."""
    for name in ("protos", "stack"):
        shutil.copytree(CLONE / name, tmp_path / name)
    shutil.copy(CLONE / "buf.yaml", tmp_path)
    (tmp_path / ".venv").symlink_to(CLONE / ".venv")
    return tmp_path


def change(clone: Path, file: str, old: str, new: str) -> None:
    path = clone / "protos" / "provgate" / "v1" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    for command in ("git init -q .", "git add -A", "git -c user.name=a -c user.email=a@example.org commit -qm a"):
        subprocess.run(command.split(), cwd=clone, check=True)


def test_the_protos_break_no_client_of_the_last_release(clone: Path) -> None:
    assert breaking(clone).returncode == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (SERVICE, "rpc ContentFindFirst(", "rpc ContentFindEarliest(", '"ContentFindFirst"'),
        ("model.proto", "ENTITY_TYPE_CONTENT = 1", "ENTITY_TYPE_CONTENT = 9", '"1"'),
        ("model.proto", "bytes src = 1;", "string src = 1;", '"src"'),
    ],
)
def test_a_change_that_breaks_is_noticed_though_it_is_committed(
    clone: Path, file: str, old: str, new: str, told: str
) -> None:
    change(clone, file, old, new)
    ended = breaking(clone)
    assert ended.returncode != 0, f"{old} became {new}, and the check passes: {ended.stdout}"
    assert told in ended.stdout


def test_what_only_adds_breaks_nothing(clone: Path) -> None:
    change(
        clone,
        "errors.proto",
        "  ERROR_REASON_UNSPECIFIED = 0;",
        "  // None.\n  ERROR_REASON_UNSPECIFIED = 0;\n  // New.\n  ERROR_REASON_LATEST = 999;",
    )
    assert breaking(clone).returncode == 0
