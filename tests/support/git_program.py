"""The git program, without the user's configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

IDENTITY = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(where: Path, *arguments: str | Path, date: int | None = None) -> str:
    """Runs git in a directory; returns its output without the newline at the end."""
    environment = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    if date is not None:
        environment["GIT_AUTHOR_DATE"] = f"@{date} +0100"
    return subprocess.run(
        ["git", "-C", where, *arguments], check=True, capture_output=True, text=True, env=environment
    ).stdout.rstrip("\n")


def commit_file(where: Path, name: str, text: str, date: int) -> str:
    """Writes a file, commits everything, returns the commit's id in hexadecimal."""
    path = where / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message", name, date=date)
    return git(where, "rev-parse", "HEAD")
