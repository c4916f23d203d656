"""Roles, and the role that each RPC needs. `control.py` checks it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

PUBLIC: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
    }
)
"""The RPCs that need no role: load balancers check the health of a server without credentials."""


class Role(Enum):
    """What a caller may do. Each role includes those before it."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Returns whether this role may do everything that `other` may."""
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER: Final = tuple(Role)
_SERVICE: Final = "/provgate.v1.ProvenanceStorage/"

# Each RPC is listed: one that is not is for admins only, and a test that walks the descriptors fails.
NEEDED: Final[Mapping[str, Role]] = {
    f"{_SERVICE}ContentAdd": Role.WRITER,
    f"{_SERVICE}DirectoryAdd": Role.WRITER,
    f"{_SERVICE}RevisionAdd": Role.WRITER,
    f"{_SERVICE}OriginAdd": Role.WRITER,
    f"{_SERVICE}LocationAdd": Role.WRITER,
    f"{_SERVICE}RelationAdd": Role.WRITER,
    f"{_SERVICE}ContentGet": Role.READER,
    f"{_SERVICE}DirectoryGet": Role.READER,
    f"{_SERVICE}RevisionGet": Role.READER,
    f"{_SERVICE}OriginGet": Role.READER,
    f"{_SERVICE}RelationGet": Role.READER,
    f"{_SERVICE}RelationGetAll": Role.READER,
    f"{_SERVICE}EntityGetAll": Role.READER,
    f"{_SERVICE}LocationGetAll": Role.READER,
    f"{_SERVICE}ContentFindFirst": Role.READER,
    f"{_SERVICE}ContentFindAll": Role.READER,
    f"{_SERVICE}WithPath": Role.READER,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.READER,
}


def needed_role(rpc: str) -> Role | None:
    """Returns the role that an RPC (`/package.Service/Method`) needs; None if it needs none."""
    return None if rpc in PUBLIC else NEEDED.get(rpc, Role.ADMIN)
