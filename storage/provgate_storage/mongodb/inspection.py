"""What MongoDB tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from pymongo.database import Database
from pymongo.errors import OperationFailure

from provgate_storage.database.local import Danger, StorageFacts

_MAJORITY: Final = "majority"
_URI: Final = "remove it from provenance.rabbitmq.storage_config.db: what is not set there is `w: majority, j: true`"


def inspect(written: Database[Any]) -> StorageFacts:
    """Returns what the server tells.

    Args:
        written: the database, as writes use it.
    """
    admin = written.client.admin
    hello, build = admin.command("hello"), admin.command("buildInfo")
    dangers = [*dangers_of_writes(written.write_concern.document, hello), *_dangers_of_storage(_status(admin))]
    return StorageFacts(f"MongoDB {build['version']}", hello["localTime"].replace(tzinfo=UTC), tuple(dangers))


def dangers_of_writes(write_concern: Mapping[str, Any], hello: Mapping[str, Any]) -> list[Danger]:
    """Returns what endangers writes that are acknowledged as `write_concern` has it.

    Args:
        write_concern: `w` and `j`; a `w` that is neither a number nor `majority` is a rule of the replica set's own,
            and trusted.
        hello: the answer of the server; in a replica set it names the members.
    """
    dangers = []
    w, member_count = write_concern.get("w", 1), len(hello.get("hosts", ()))
    if isinstance(w, int) and w < member_count // 2 + 1:
        harm = "rows that were acked are rolled back where the primary is lost before others of the set have them"
        dangers.append(Danger("w", f"{w} of {member_count} members", harm, _URI))
    if not write_concern.get("j", False):
        harm = "rows that were acked in the last moments before a crash of the server are lost"
        dangers.append(Danger("journal", "false", harm, _URI))
    return dangers


def _dangers_of_storage(status: Mapping[str, Any]) -> list[Danger]:
    engine = status.get("storageEngine", {})
    if engine.get("persistent", True):
        return []
    harm = "everything is lost when the server ends"
    return [Danger("storageEngine", str(engine.get("name")), harm, "start mongod with --storageEngine wiredTiger")]


def _status(admin: Database[Any]) -> Mapping[str, Any]:
    try:
        answer: Mapping[str, Any] = admin.command("serverStatus")
    except OperationFailure:
        # It takes the role `clusterMonitor`, which no program of ours needs.
        return {}
    return answer
