from __future__ import annotations

import pytest

from provgate_stack.servers.selection import ExistingMongoDb


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("mongodb://h", "mongodb://h/t"),
        ("mongodb://h:1,g:2/d?replicaSet=r", "mongodb://h:1,g:2/t?replicaSet=r"),
        ("mongodb://u:p%40@h/d", "mongodb://u:p%40@h/t?authSource=d"),
        ("mongodb://u:p@h/d?tls=true", "mongodb://u:p@h/t?tls=true&authSource=d"),
        ("mongodb://u:p@h/d?AuthSource=admin", "mongodb://u:p@h/t?AuthSource=admin"),
        ("mongodb://u:p@h/", "mongodb://u:p@h/t"),
    ],
)
def test_a_database_beside_the_given_one_has_the_same_users(url: str, made: str) -> None:
    assert ExistingMongoDb(url).create_database("t") == made


def test_the_url_is_used_as_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVGATE_MONGODB_URL", "mongodb://h/d")
    server = ExistingMongoDb.of_environment()
    assert server is not None
    assert server.storage_config() == {"cls": "mongodb", "db": "mongodb://h/d"}
    monkeypatch.delenv("PROVGATE_MONGODB_URL")
    assert ExistingMongoDb.of_environment() is None
