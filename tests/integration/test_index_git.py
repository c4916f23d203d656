"""Three histories, indexed through the whole stack, against a walk of every revision."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provgate_client.git import index_repository
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.stack import Stack
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import EntityType, ProvenanceResult, RelationType
from tests.integration.histories import HISTORIES, make_repository
from tests.support.git_repositories import Occurrence, brute_force

SAMPLED_CONTENTS = 60
KILLS = 2


History = Mapping[bytes, set[Occurrence]]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("git")
    return {name: make_repository(name, directory) for name in HISTORIES}


@pytest.fixture(scope="module")
def history(repositories: dict[str, Path]) -> History:
    """What is in any of the repositories."""
    found: dict[bytes, set[Occurrence]] = {}
    for repository in repositories.values():
        for content, occurrences in brute_force(repository).items():
            found.setdefault(content, set()).update(occurrences)
    return found


@pytest.fixture
def storage(stack: Stack) -> Iterator[ProvenanceStorageGrpc]:
    with ProvenanceStorageGrpc(url=stack.address) as opened:
        yield opened


def test_in_one_go(repositories: dict[str, Path], history: History, storage: ProvenanceStorageGrpc) -> None:
    for name in HISTORIES:
        report = index_repository(repositories[name], storage, f"https://example.org/{name}")
        assert report.is_complete
        assert report.revisions_total == report.revisions_known + report.revisions_done
    assert_index(storage, history)


def test_killed_and_run_again_in_the_other_order(
    repositories: dict[str, Path], history: History, storage: ProvenanceStorageGrpc, stack: Stack, drawn: random.Random
) -> None:
    killed_count = 0
    for name in reversed(HISTORIES):
        kills = [(drawn.uniform(0.05, 0.9), drawn.uniform(0.5, 6)) for _ in range(KILLS)]
        killed_count += _index_with_kills(repositories[name], storage, stack.client_environment(), kills)
    assert killed_count > 0
    assert_index(storage, history)


def assert_index(storage: ProvenanceStorageInterface, history: History) -> None:
    contents = sorted(history)
    assert storage.entity_get_all(EntityType.CONTENT) == set(contents)
    assert occurrences_of(storage) == history
    with ThreadPoolExecutor(8) as threads:
        firsts = threads.map(storage.content_find_first, contents)
        for content, first in zip(contents, firsts, strict=True):
            assert first is not None
            assert _occurrence(first) == min(history[content])
    most = sorted(contents, key=lambda content: len(history[content]))[-3:]
    for content in [*most, *random.Random(0).sample(contents, SAMPLED_CONTENTS)]:
        assert [_occurrence(result) for result in storage.content_find_all(content)] == sorted(history[content])


def occurrences_of(storage: ProvenanceStorageInterface) -> History:
    """Returns what find_all yields for every content, from all rows at once."""
    ids = storage.entity_get_all(EntityType.REVISION)
    dates = {rev: data.date for rev, data in storage.revision_get(ids).items() if data.date is not None}
    times = {revision: int(date.timestamp()) for revision, date in dates.items()}
    in_revision = storage.relation_get_all(RelationType.DIR_IN_REV)
    found: dict[bytes, set[Occurrence]] = {}
    for content, rows in storage.relation_get_all(RelationType.CNT_EARLY_IN_REV).items():
        found.setdefault(content, set()).update(Occurrence(times[row.dst], row.dst, row.path or b"") for row in rows)
    for content, rows in storage.relation_get_all(RelationType.CNT_IN_DIR).items():
        found.setdefault(content, set()).update(
            Occurrence(times[outer.dst], outer.dst, b"%s/%s" % (outer.path, row.path))
            for row in rows
            for outer in in_revision[row.dst]
        )
    return found


def _index_with_kills(
    repository: Path,
    storage: ProvenanceStorageGrpc,
    environment: Mapping[str, str],
    kills: Sequence[tuple[float, float]],
) -> int:
    """Indexes a repository; returns how many of the kills came while it was at work.

    A kill comes when a share of the revisions is indexed, or after a number of seconds.
    """
    revisions = _revisions(repository)
    killed_count = 0
    for share, after_s in kills:
        process, start_s = _start(repository, environment), time.monotonic()
        while process.poll() is None and time.monotonic() - start_s < after_s:
            if _dated_count(storage, revisions) >= share * len(revisions):
                break
            time.sleep(0.01)
        process.kill()
        output, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), output
        killed_count += process.returncode != 0
    known_count = _dated_count(storage, revisions)
    process = _start(repository, environment)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    done = re.search(r"(\d+) revisions? indexed, (\d+) known before", output)
    assert done is not None, output
    assert int(done[1]) + int(done[2]) == len(revisions)
    assert int(done[2]) >= known_count
    return killed_count


def _start(repository: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "provgate_client.cli",
        "index",
        str(repository),
        "--origin",
        "https://example.org/",
    ]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _revisions(repository: Path) -> Sequence[bytes]:
    command = ["git", "-C", str(repository), "rev-list", "--all"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [bytes.fromhex(line) for line in output.split()]


def _dated_count(storage: ProvenanceStorageGrpc, revisions: Sequence[bytes]) -> int:
    return sum(data.date is not None for data in storage.revision_get(revisions).values())


def _occurrence(result: ProvenanceResult) -> Occurrence:
    return Occurrence(int(result.date.timestamp()), result.revision, result.path)
