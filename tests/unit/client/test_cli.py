from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from click.testing import CliRunner, Result

from provgate_client.cli import main
from provgate_client.cli.add import BATCH_ENTRIES, LINE_MAX_BYTES
from provgate_storage import EntityType, RelationData, RelationType, RevisionData
from tests.support.gateway_double import ENDLESS, Fault, GatewayDouble
from tests.support.git_program import commit_file, git
from tests.support.git_repositories import RepositoryWriter, content
from tests.support.reference import InMemoryProvenanceStorage
from tests.unit.client.conftest import DATE, make_ids

EMPTY_BLOB = bytes.fromhex("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
ID = make_ids(200)

Run: TypeAlias = Callable[..., Result]


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("PROVGATE_", "SWH_")):
            monkeypatch.delenv(name)


@pytest.fixture
def run(gateway: GatewayDouble) -> Run:
    """Runs `provgate` against the gateway."""

    def run_it(*arguments: str, stdin: str | bytes | None = None, url: str | None = None) -> Result:
        return CliRunner().invoke(main, ["--url", url or gateway.address, *arguments], input=stdin)

    return run_it


def store_occurrences(gateway: GatewayDouble, content: bytes, paths: Iterable[bytes]) -> None:
    storage = gateway.storage
    storage.origin_add({ID[7]: "https://example.org/"})
    for number, path in enumerate(paths):
        revision = ID[100 + number]
        storage.revision_add({revision: RevisionData(DATE.replace(day=1 + number), ID[7])})
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, {content: {RelationData(revision, path)}})


class TestFirst:
    def test_ndjson(self, run: Run, gateway: GatewayDouble, tmp_path: Path) -> None:
        store_occurrences(gateway, EMPTY_BLOB, [b"a", b"b"])
        (tmp_path / "file").write_bytes(b"")
        result = run(
            "first", str(tmp_path / "file"), EMPTY_BLOB.hex(), f"swh:1:cnt:{EMPTY_BLOB.hex()};lines=1", "0" * 40
        )
        assert result.exit_code == 0
        row = {
            "content": EMPTY_BLOB.hex(),
            "date": "2004-02-01T00:00:00+00:00",
            "revision": ID[100].hex(),
            "path": "a",
            "origin": "https://example.org/",
        }
        assert lines_of(result.stdout) == [row] * 3
        assert result.stderr == f"{'0' * 40}: not known\n"

    def test_table(self, run: Run, gateway: GatewayDouble) -> None:
        store_occurrences(gateway, EMPTY_BLOB, [b"\xff" + b"x" * 300])
        result = run("first", EMPTY_BLOB.hex(), "--format", "table")
        heading, row = result.stdout.splitlines()
        assert heading.split() == ["content", "date", "revision", "path", "origin"]
        assert row.split()[2:] == [ID[100].hex(), "\\xff" + "x" * 300, "https://example.org/"]

    def test_nothing_is_known(self, run: Run) -> None:
        result = run("first", "0" * 40)
        assert (result.exit_code, result.stdout) == (1, "")

    @pytest.mark.parametrize("item", ["nowhere", f"swh:1:rev:{'0' * 40}", "."])
    def test_what_is_no_content(self, run: Run, item: str, gateway: GatewayDouble) -> None:
        result = run("first", item)
        assert result.exit_code == 2
        assert item in result.stderr
        assert gateway.seen.calls == []


class TestAll:
    def test_in_order_and_limited(self, run: Run, gateway: GatewayDouble) -> None:
        store_occurrences(gateway, EMPTY_BLOB, [b"a", b"\xff", b"c"])
        rows = lines_of(run("all", EMPTY_BLOB.hex()).stdout)
        assert [(row.get("path"), row.get("path_hex")) for row in rows] == [("a", None), (None, "ff"), ("c", None)]
        assert lines_of(run("all", EMPTY_BLOB.hex(), "--limit", "2").stdout) == rows[:2]

    def test_nothing_is_known(self, run: Run) -> None:
        result = run("all", "0" * 40)
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{'0' * 40}: not known\n")

    @pytest.mark.parametrize("limit", ["0", "-1", "x", str(2**63)])
    def test_bad_limits(self, run: Run, limit: str) -> None:
        assert run("all", "0" * 40, f"--limit={limit}").exit_code == 2


class TestGetAndAdd:
    def test_contents_go_round(self, run: Run, gateway: GatewayDouble) -> None:
        lines = "".join(
            json.dumps(row) + "\n"
            for row in (
                {"id": ID[1].hex(), "date": "0001-01-01T00:00:00+00:00"},
                {"id": ID[2].hex(), "date": "1969-12-31T23:59:59.000001+00:00"},
            )
        )
        assert run("add", "contents", stdin=lines + f'\n{{"id": "swh:1:cnt:{ID[3].hex()}"}}').stderr == (
            "3 entries acked\n"
        )
        result = run("get", "contents", *(ID[number].hex() for number in (1, 2, 3)))
        assert sorted(result.stdout.splitlines()) == [
            line.replace(": ", ":").replace(", ", ",") for line in lines.split("\n")[:2]
        ]
        assert gateway.storage.entity_get_all(EntityType.CONTENT) == {ID[1], ID[2], ID[3]}

    def test_revisions_go_round(self, run: Run, gateway: GatewayDouble) -> None:
        data = {
            ID[1]: RevisionData(DATE, ID[7]),
            ID[2]: RevisionData(None, ID[7]),
            ID[3]: RevisionData(DATE, None),
        }
        gateway.storage.revision_add(data)
        printed = run("get", "revisions", *(each.hex() for each in data)).stdout
        gateway.storage = InMemoryProvenanceStorage()
        assert run("add", "revisions", stdin=printed).exit_code == 0
        assert gateway.storage.revision_get(data) == data

    def test_relations_and_locations_go_round(self, run: Run, gateway: GatewayDouble) -> None:
        rows = {ID[1]: {RelationData(ID[2], b"\xff\n"), RelationData(ID[2], b"")}}
        gateway.storage.relation_add(RelationType.CNT_IN_DIR, rows)
        gateway.storage.location_add([b"\\ \xc3\xa9"])
        relation, locations = run("get", "all", "content_in_directory"), run("get", "all", "locations")
        forward = run("get", "relation", "content_in_directory", ID[1].hex())
        reverse = run("get", "relation", "content_in_directory", f"swh:1:dir:{ID[2].hex()}", "--reverse")
        for answer in (forward, reverse):
            assert sorted(answer.stdout.splitlines()) == sorted(relation.stdout.splitlines())
        gateway.storage = InMemoryProvenanceStorage()
        assert run("add", "relation", "content_in_directory", stdin=relation.stdout).stderr == "2 entries acked\n"
        assert run("add", "locations", stdin=locations.stdout).stderr == "3 entries acked\n"
        assert gateway.storage.relation_get_all(RelationType.CNT_IN_DIR) == rows
        assert gateway.storage.location_get_all() == {b"\xff\n", b"", b"\\ \xc3\xa9"}

    def test_origins_by_url(self, run: Run) -> None:
        row = {"id": "166d9d911dbbe419d479a9900b2cb85e6e46aa2d", "url": "https://example.org/"}
        assert run("add", "origins", stdin=json.dumps(row)).exit_code == 0
        assert lines_of(run("get", "origins", "https://example.org/").stdout) == [row]

    def test_ids_from_standard_input(self, run: Run, gateway: GatewayDouble) -> None:
        gateway.storage.directory_add({ID[1]: DATE, ID[2]: DATE})
        everything = run("get", "all", "directories")
        assert {row["id"] for row in lines_of(everything.stdout)} == {ID[1].hex(), ID[2].hex()}
        found = run("get", "directories", "-", stdin=everything.stdout + f"\nswh:1:dir:{ID[3].hex()}\n")
        assert len(lines_of(found.stdout)) == 2
        bad = run("get", "directories", "-", stdin=f"{ID[1].hex()}\nnonsense\n")
        assert (bad.exit_code, "line 2: 'nonsense'" in bad.stderr) == (2, True)

    def test_get_exits_with_1_where_nothing_is_found(self, run: Run) -> None:
        assert run("get", "contents", "0" * 40).exit_code == 1
        assert run("get", "all", "contents").exit_code == 0

    @pytest.mark.parametrize(
        ("noun", "line", "text"),
        [
            ("contents", "{", "truncated"),
            ("contents", "[]", "Expected `object`"),
            ("contents", "{}", "missing required field `id`"),
            ("contents", '{"id": 5}', "Expected `str`"),
            ("contents", '{"id": "x"}', "'x' is not an id"),
            ("contents", f'{{"id": "swh:1:dir:{"0" * 40}"}}', "not of type content"),
            ("contents", f'{{"id": "{"0" * 40}", "dates": null}}', "unknown field `dates`"),
            ("contents", f'{{"id": "{"0" * 40}", "date": "yesterday"}}', "not a date"),
            ("contents", f'{{"id": "{"0" * 40}", "date": "2020-01-01T00:00:00"}}', "no offset"),
            ("contents", f'{{"id": "{"0" * 40}", "date": "0001-01-01T00:00:00+01:00"}}', "years 1 to 9999"),
            ("contents", b'{"id": "\xff"}', "utf-8"),
            ("contents", " " * LINE_MAX_BYTES + " ", "longer than"),
            ("revisions", f'{{"id": "{"0" * 40}", "origin": "x"}}', "'x' is not an id"),
            ("origins", f'{{"id": "{"0" * 40}", "url": ""}}', "not empty"),
            ("locations", '{"path": "a\\u0000b"}', "NUL"),
            ("locations", '{"path": "\\ud800"}', ""),
            ("locations", '{"path_hex": "f"}', "path_hex"),
            ("locations", '{"path_hex": "ff", "path": "a"}', "not both"),
            ("locations", "{}", "a path or a path_hex"),
        ],
    )
    def test_bad_lines_are_numbered_and_stop_everything(
        self, run: Run, gateway: GatewayDouble, noun: str, line: str | bytes, text: str
    ) -> None:
        raw = line if isinstance(line, bytes) else line.encode()
        good = {"locations": '{"path": "a"}', "origins": f'{{"id": "{"1" * 40}", "url": "u"}}'}
        first = good.get(noun, f'{{"id": "{"1" * 40}"}}').encode()
        result = run("add", noun, stdin=first + b"\n\n" + raw + b"\n" + first)
        assert result.exit_code == 1
        acked, error = result.stderr.splitlines()
        assert acked == "0 entries acked"
        assert error.startswith("Error: line 3: ")
        assert text in error
        assert gateway.seen.calls == []

    def test_what_came_before_a_bad_line_is_told(self, run: Run, gateway: GatewayDouble) -> None:
        lines = "".join(f'{{"id": "{each.hex()}"}}\n' for each in make_ids(BATCH_ENTRIES + 1))
        result = run("add", "contents", stdin=f"{lines}nonsense\n")
        assert f"{BATCH_ENTRIES} entries acked" in result.stderr
        assert f"line {BATCH_ENTRIES + 2}: " in result.stderr
        assert len(gateway.storage.entity_get_all(EntityType.CONTENT)) == BATCH_ENTRIES

    def test_the_earliest_of_two_dates_in_one_batch_wins(self, run: Run, gateway: GatewayDouble) -> None:
        lines = [{"id": "1" * 40, "date": f"20{year}-01-01T00:00:00Z"} for year in ("10", "09", "11")]
        run("add", "contents", stdin="\n".join(map(json.dumps, lines)))
        assert gateway.storage.content_get([b"\x11" * 20]) == {b"\x11" * 20: datetime(2009, 1, 1, tzinfo=UTC)}

    def test_paths_where_a_relation_has_none(self, run: Run, gateway: GatewayDouble) -> None:
        row = {"src": "1" * 40, "dst": "2" * 40, "path": "a"}
        result = run("add", "relation", "revision_in_origin", stdin=json.dumps(row))
        assert "line 1: a row of revision_in_origin has no path" in result.stderr
        del row["path"]
        assert run("add", "relation", "revision_in_origin", stdin=json.dumps(row)).exit_code == 0
        assert lines_of(run("get", "all", "revision_in_origin").stdout) == [row]


class TestId:
    def test_the_three_forms(self, run: Run) -> None:
        forms = {
            "id": EMPTY_BLOB.hex(),
            "swhid": f"swh:1:cnt:{EMPTY_BLOB.hex()}",
            "base64": "5p3im7LR1kNLiymud1rYwuSMU5E=",
        }
        assert lines_of(run("id", forms["id"], forms["swhid"]).stdout) == [forms] * 2
        assert lines_of(run("id", "--base64", forms["base64"]).stdout) == [forms]
        revision = run("id", f"swh:1:rev:{EMPTY_BLOB.hex()}")
        assert lines_of(revision.stdout)[0]["swhid"] == f"swh:1:rev:{EMPTY_BLOB.hex()}"


class TestIndex:
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        """A repository of one commit, whose one file is empty."""
        git(tmp_path, "init", "--quiet", "repository")
        commit_file(tmp_path / "repository", "empty", "", date=1000)
        return tmp_path / "repository"

    def test_then_first_finds_a_file(self, run: Run, repository: Path, gateway: GatewayDouble) -> None:
        result = run("index", str(repository), "--origin", "https://example.org/r.git")
        assert result.exit_code == 0
        assert result.stdout.startswith("1 revision indexed, 0 known before, 1 head; ")
        assert "revisions 1 of 1, entries sent " in result.stderr
        assert result.stderr.startswith(f"gateway: {gateway.address} (--url)\n")
        found = lines_of(run("first", str(repository / "empty")).stdout)
        assert [(row["path"], row["origin"]) for row in found] == [("empty", "https://example.org/r.git")]
        assert run("index", str(repository)).stdout.startswith("0 revisions indexed, 1 known before, 1 head; ")

    @pytest.mark.parametrize(
        ("remote", "origin"),
        [
            (None, "file://{}"),
            ("https://user:secret@example.org/r.git", "https://example.org/r.git"),
            ("git@example.org:me/r.git", "ssh://git@example.org/me/r.git"),
            ("example.org:/srv/my r.git", "ssh://example.org/srv/my%20r.git"),
            ("git@[2001:db8::1]:r.git", "ssh://git@[2001:db8::1]/r.git"),
            ("ssh://git:secret@example.org:2222/~me/r.git", "ssh://git@example.org:2222/~me/r.git"),
            ("file:///srv/r.git", "file:///srv/r.git"),
            ("/srv/r.git", "file://{}"),
            ("../r.git", "file://{}"),
            ("./example.org:r.git", "file://{}"),
            ("r.git", "file://{}"),
            ("ext::ssh secret %S", "file://{}"),
            ("https://[broken/r.git", "file://{}"),
        ],
    )
    def test_the_origin_where_none_is_given(
        self, run: Run, repository: Path, gateway: GatewayDouble, remote: str | None, origin: str
    ) -> None:
        if remote is not None:
            git(repository, "remote", "add", "origin", remote)
        result = run("index", str(repository))
        url = origin.format(repository)
        assert f"origin: {url} (the repository" in result.stderr.splitlines()[0]
        assert "secret" not in result.stderr
        assert list(gateway.storage.origin_get(gateway.storage.entity_get_all(EntityType.ORIGIN)).values()) == [url]

    def test_what_is_left_out_is_listed(self, run: Run, tmp_path: Path) -> None:
        writer = RepositoryWriter(tmp_path / "r.git")
        revision = writer.commit(writer.tree({b"a": content("a")}), 999999999999)
        writer.ref(revision)
        result = run("index", str(writer.path), "--origin", "https://example.org/r.git")
        assert result.exit_code == 1
        assert "left out: 1 because the author date is not in the years 1 to 9999" in result.stderr
        assert f"  {revision.hex()}: " in result.stderr

    def test_what_is_no_repository(self, run: Run, tmp_path: Path) -> None:
        result = run("index", str(tmp_path))
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert run("index", str(tmp_path / "missing")).exit_code == 2


class TestFailures:
    def test_nobody_there(self, run: Run) -> None:
        result = CliRunner().invoke(main, ["--url", "127.0.0.1:1", "--connect-timeout-s", "0.1", "first", "0" * 40])
        assert result.exit_code == 1
        assert result.stderr == "Error: no gateway answers at 127.0.0.1:1 within 0.1 s: the connection is refused\n"

    def test_a_refusal_is_one_line(self, run: Run, gateway: GatewayDouble) -> None:
        gateway.faults.append(Fault(grpc.StatusCode.UNIMPLEMENTED, message="this gateway\nhas no reads"))
        result = run("first", "0" * 40)
        assert (result.exit_code, result.stderr) == (1, "Error: content_find_first: this gateway has no reads\n")

    def test_a_write_that_fails_tells_what_was_acked(self, run: Run, gateway: GatewayDouble) -> None:
        gateway.faults.append(Fault(grpc.StatusCode.INTERNAL))
        result = run("add", "locations", stdin='{"path": "a"}')
        assert result.exit_code == 1
        assert result.stderr == "0 entries acked\nError: location_add: told to fail\n"

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ("provenance: {storage: {cls: rabbitmq, url: amqp://localhost}}", "provenance.rabbitmq"),
            ("provenance: {storage: {cls: postgresql}}", "{cls: grpc, url: HOST:PORT}"),
            (
                "provenance: {storage: {cls: grpc, adress: x}}",
                "provenance.storage.adress: ",
            ),
            ("provenance: {storage: {cls: grpc, retry_time_s: x}}", "provenance.storage.retry_time_s"),
            ("provenance: {storag: {}}", "provenance.storag: unknown key"),
            ("provenance: [", "not YAML"),
        ],
    )
    def test_configuration(self, tmp_path: Path, content: str, text: str) -> None:
        (tmp_path / "config.yml").write_text(content)
        result = CliRunner().invoke(main, ["--config", str(tmp_path / "config.yml"), "first", "0" * 40])
        assert result.exit_code == 2
        assert text in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_a_missing_file(self) -> None:
        result = CliRunner().invoke(main, ["--config", "/nowhere", "first", "0" * 40])
        assert (result.exit_code, "/nowhere" in result.stderr) == (2, True)

    def test_the_file_names_the_gateway(
        self, gateway: GatewayDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "config.yml"
        config.write_text(f"provenance: {{archive: {{}}, storage: {{cls: grpc, url: '{gateway.address}'}}}}")
        monkeypatch.setenv("SWH_CONFIG_FILENAME", str(config))
        result = CliRunner().invoke(main, ["get", "all", "contents"])
        assert (result.exit_code, result.stderr) == (
            0,
            "Warning: provenance.archive is ignored: provgate has no use for it\n",
        )

    def test_help_needs_no_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROVGATE_CONFIG", "/nowhere")
        for command in ("", "index", "first", "all", "get contents", "get relation", "get all", "add revisions", "id"):
            result = CliRunner().invoke(main, [*command.split(), "--help"])
            assert (result.exit_code, "Usage:" in result.stdout) == (0, True), command


class TestProcess:
    """What only a process of its own shows."""

    def test_a_broken_pipe_is_quiet(self, gateway: GatewayDouble) -> None:
        command = [sys.executable, "-m", "provgate_client.cli", "--url", gateway.address, "all", ENDLESS.hex()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(60) == 1
        assert gateway.seen.ended.wait(30)

    def test_index_names_the_extra_that_it_needs(self, gateway: GatewayDouble, tmp_path: Path) -> None:
        code = "import sys; sys.modules['pygit2'] = None; from provgate_client.cli import main; main()"
        command = [sys.executable, "-c", code, "--url", gateway.address, "index", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "pip install 'provgate[git]'" in done.stderr
        assert len(done.stderr.splitlines()) == 1
