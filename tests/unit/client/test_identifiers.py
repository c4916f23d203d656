from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_client import identifiers
from provgate_client.cli.items import id_of_item
from provgate_client.cli.output import printable_path
from provgate_client.identifiers import BlobError, IdentifierError, blob_id
from provgate_storage.model import EntityType

IDS = st.binary(min_size=20, max_size=20)
ENTITIES = st.sampled_from(EntityType)
HEX = "94a9ed024d3859793618152ea559a168bbcbb5e2"


@given(IDS, ENTITIES)
def test_every_form_can_be_read_back(id: bytes, entity: EntityType) -> None:
    swhid = identifiers.to_swhid(id, entity)
    assert identifiers.parse_identifier(swhid, entity) == id
    assert identifiers.parse_identifier(f"{swhid};origin=https://example.org/;lines=1-2", entity) == id
    assert identifiers.parse_identifier(id.hex().upper(), entity) == id
    assert identifiers.from_base64(identifiers.to_base64(id)) == id
    assert identifiers.entity_of_swhid(swhid) is entity


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX[:-1],
        HEX + "0",
        "g" + HEX[1:],
        f" {HEX}",
        f"swh:1:cnt:{HEX[:-1]}",
        f"swh:2:cnt:{HEX}",
        f"swh:1:cnt:{HEX} ",
        f"swh:1:dir:{HEX}",
        f"swh:1:snp:{HEX}",
        f"SWH:1:cnt:{HEX}",
    ],
)
def test_what_is_no_content_s_id(text: str) -> None:
    with pytest.raises(IdentifierError):
        identifiers.parse_identifier(text, EntityType.CONTENT)


def test_a_wrong_type_is_told() -> None:
    with pytest.raises(IdentifierError, match="not of type content: such a SWHID starts with swh:1:cnt:"):
        identifiers.parse_identifier(f"swh:1:rev:{HEX}", EntityType.CONTENT)


@pytest.mark.parametrize("text", ["", "5p3im7LR1kNLiymud1rYwuSMU5", "AAAA", HEX, "ä" * 28])
def test_what_is_no_base64_of_an_id(text: str) -> None:
    with pytest.raises(IdentifierError):
        identifiers.from_base64(text)


class TestFiles:
    @pytest.mark.parametrize("content", [b"", b"hello\r\n", b"\0" * 3_000_000])
    def test_are_hashed_as_git_does(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "file").write_bytes(content)
        told = subprocess.run(
            ["git", "hash-object", "--no-filters", "file"], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert blob_id(tmp_path / "file").hex() == told.stdout.strip()

    def test_a_link_is_its_text(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("what is up, doc?")
        # The example of the Git book.
        assert blob_id(tmp_path / "link").hex() == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"

    def test_directories_and_pipes_have_no_blob(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(BlobError):
                blob_id(path)

    def test_an_id_wins_over_a_file_unless_there_is_a_slash(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path(HEX).write_bytes(b"")
        Path(f"swh:1:cnt:{HEX}").write_bytes(b"")
        empty = bytes.fromhex("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
        assert id_of_item(HEX, EntityType.CONTENT).hex() == HEX
        assert id_of_item(f"./{HEX}", EntityType.CONTENT) == empty
        assert id_of_item(f"swh:1:cnt:{HEX}", EntityType.CONTENT).hex() == HEX
        assert id_of_item(f"./swh:1:cnt:{HEX}", EntityType.CONTENT) == empty

    @pytest.mark.parametrize("item", ["missing", "", ".", "a\0b", "x" * 5000, __file__])
    def test_what_is_nothing(self, item: str) -> None:
        with pytest.raises(IdentifierError):
            id_of_item(item, EntityType.REVISION if item == __file__ else EntityType.CONTENT)


def test_an_origin_is_named_by_its_url() -> None:
    # The SHA-1 of the text, as `printf %s URL | sha1sum` says.
    assert id_of_item("https://example.org/", EntityType.ORIGIN).hex() == "166d9d911dbbe419d479a9900b2cb85e6e46aa2d"


class TestPrintablePaths:
    def test_examples(self) -> None:
        assert printable_path(b"src/\xc3\xa9.c") == "src/\u00e9.c"
        assert printable_path(b"\\xff\xff\x1b\n") == "\\\\xff\\xff\\x1b\\x0a"
        assert printable_path("\u202e".encode()) == "\\xe2\\x80\\xae"

    @given(st.binary())
    def test_one_line_and_reversible(self, path: bytes) -> None:
        shown = printable_path(path)
        assert shown.isprintable()
        parts = shown.encode().split(b"\\\\")
        assert b"\\".join(_bytes(part) for part in parts) == path


def _bytes(part: bytes) -> bytes:
    head, *escaped = part.split(b"\\x")
    return head + b"".join(bytes.fromhex(each[:2].decode()) + each[2:] for each in escaped)
