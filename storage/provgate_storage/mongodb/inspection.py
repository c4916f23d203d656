"""Version, clock and dangerous settings of a MongoDB server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from pymongo.database import Database
from pymongo.errors import OperationFailure

from provgate_storage.database.local import Danger, StorageFacts
from provgate_storage.mongodb.connection import Document

_REMEDY: Final = (
    "remove it from provenance.rabbitmq.storage_config.db: the default is the safe setting, `w: majority, j: true`"
)


def inspect(written: Database[Document]) -> StorageFacts:
    """Returns what the server says.

    Args:
        written: the database, as writes use it.
    """
    admin = written.client.admin
    hello, build = admin.command("hello"), admin.command("buildInfo")
    dangers = dangers_of_writes(written.write_concern.document, hello)
    try:
        engine = admin.command("serverStatus").get("storageEngine", {})
    except OperationFailure:
        # It takes the role `clusterMonitor`, which provgate's programs do not need.
        engine = {}
    if not engine.get("persistent", True):
        harm, remedy = "all data is lost when the server ends", "start mongod with --storageEngine wiredTiger"
        dangers.append(Danger("storageEngine", str(engine.get("name")), harm, remedy))
    return StorageFacts(f"MongoDB {build['version']}", hello["localTime"].replace(tzinfo=UTC), tuple(dangers))


def dangers_of_writes(write_concern: Mapping[str, Any], hello: Mapping[str, Any]) -> list[Danger]:
    """Returns the dangers of a write concern.

    Args:
        write_concern: `w` and `j`; a `w` that is neither a number nor `majority` is a rule that the replica set
            defines, and trusted.
        hello: the answer of the server; in a replica set it names the members.
    """
    dangers = []
    w, member_count = write_concern.get("w", 1), len(hello.get("hosts", ()))
    if isinstance(w, int) and w < member_count // 2 + 1:
        harm = "acked rows are rolled back if the primary is lost before other members have them"
        dangers.append(Danger("w", f"{w} of {member_count} members", harm, _REMEDY))
    if not write_concern.get("j", False):
        harm = "a crash of the server loses the rows acked in the last moments before it"
        dangers.append(Danger("journal", "false", harm, _REMEDY))
    return dangers
