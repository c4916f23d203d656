"""Which role each RPC needs."""

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
"""What anybody may call: load balancers ask for the health of a server without saying who they are."""


class Role(Enum):
    """What a caller may do; each role may do what those before it may."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Returns whether this role may do all that another one may."""
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER: Final = tuple(Role)
_SERVICE: Final = "/provgate.v1.ProvenanceStorage/"

# No pattern of names: an RPC that is not listed is for admins alone, and fails the test that walks the descriptors.
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
    """Returns the role that an RPC, named as gRPC does (`/package.Service/Method`), needs; None where it needs none."""
    return None if rpc in PUBLIC else NEEDED.get(rpc, Role.ADMIN)
