"""A write that MongoDB does not answer in time: is the server away, or is the write too large?"""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import NetworkTimeout

from provgate_storage.errors import StorageTimeoutError, StorageUnavailableError
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from provgate_storage.mongodb import storage as storage_module
from tests.integration.local_storage import RANGES
from tests.support.entries import entry_id
from tests.support.link import Link, Mode


def test_a_server_that_answers_others_found_the_write_too_large(
    mongodb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_too_long(*_: Any) -> None:
        raise NetworkTimeout("localhost:27017: timed out")

    with ProvenanceStorageMongoDb(db=mongodb_url) as storage:
        storage.setup(RANGES)
        with monkeypatch.context() as patch:
            patch.setattr(storage_module, "write", take_too_long)
            with pytest.raises(StorageTimeoutError, match="no answer to a write within 120 s"):
                storage.content_add([entry_id(1)])
        assert storage.content_add([entry_id(1)])


def test_a_server_that_answers_nobody_is_away(mongodb_url: str) -> None:
    port = int(mongodb_url.partition("127.0.0.1:")[2].partition("/")[0])
    with Link("127.0.0.1", port) as link:
        url = mongodb_url.replace(f":{port}/", f":{link.port}/")
        settings = {"db": f"{url}?directConnection=true", "connect_timeout_s": 1, "write_timeout_s": 1}
        with ProvenanceStorageMongoDb(**settings) as storage:
            storage.setup(RANGES)
            assert storage.content_add([entry_id(1)])
            link.mode = Mode.BLACK_HOLE
            with pytest.raises(StorageUnavailableError):
                storage.content_add([entry_id(2)])
