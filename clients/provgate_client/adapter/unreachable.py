"""Why a gateway cannot be reached, from what gRPC says of its last attempt."""

from __future__ import annotations

from typing import Final

# What a text of gRPC's core holds, and what it means. Of several the first counts.
_CAUSES: Final = (
    ("connection refused", "the connection is refused"),
    ("lookup failed", "the name is not found"),
    ("errors resolving", "the name is not found"),
    ("wrong_version_number", "it does not encrypt, and TLS is asked for"),
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet"),
    ("hostname verification", "its certificate is for another name"),
    ("certificate_verify_failed", "its certificate is of no authority that is trusted here (tls_ca_file)"),
    ("settings frame", "it takes connections and says nothing"),
)

# A server that hangs up does not say why.
_HUNG_UP: Final = ("socket closed", "connection reset", "broken pipe", "handshake read failed", "endpoint closing")
_LAST_ERROR: Final = "last error: "


def cause_of(details: str | None, secure: bool) -> str:
    """Returns why a connection could not be made.

    Args:
        details: those of a call that ended with UNAVAILABLE; None where no attempt has ended yet.
        secure: whether TLS was asked for.
    """
    if details is None:
        return "it does not answer"
    text = details.lower()
    for part, cause in _CAUSES:
        if part in text:
            return cause
    if any(part in text for part in _HUNG_UP):
        if secure:
            return "it hangs up during the TLS handshake: it may ask for a client certificate (tls_cert_file)"
        return "it hangs up: it may take TLS alone (tls, tls_ca_file)"
    return " ".join(details.rpartition(_LAST_ERROR)[2].split())
