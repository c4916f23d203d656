"""The part `access` of the section `provenance.gateway`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from provgate_config import Settings
from provgate_gateway.access.roles import Role

_Count = Annotated[int, Meta(ge=1)]


class LimitSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each principal may use at once, admins excepted; no limit where one is not given."""

    max_calls: Annotated[_Count | None, Meta(description="The most calls of one principal at once.")] = None

    max_unacked_entries: Annotated[
        _Count | None, Meta(description="The most entries that are not acked, of all writes of one principal.")
    ] = None

    entries_per_second: Annotated[
        _Count | None, Meta(description="How many entries of one principal are taken a second.")
    ] = None


class AccessSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call. Everybody may, and do everything, where neither tokens nor certificates are given."""

    tokens_file: Annotated[
        str | None,
        Meta(description="A file of lines `<name> <role> <SHA-256 of the token in hex>`; `provgate token` makes them."),
    ] = None

    certificates: Annotated[
        dict[str, Role],
        Meta(
            description="The role (reader, writer or admin) of each name of client certificates: a subject alternative "
            "name, or the common name. They need tls_client_ca."
        ),
    ] = field(default_factory=dict)

    limits: Annotated[LimitSettings, Meta(description="What each principal may use.")] = field(
        default_factory=LimitSettings
    )

    def __post_init__(self) -> None:
        if not self.is_controlled and self.limits != LimitSettings():
            raise ValueError("limits: they are for each principal, and need tokens_file or certificates")

    @property
    def is_controlled(self) -> bool:
        """Whether the gateway asks who calls."""
        return self.tokens_file is not None or bool(self.certificates)
