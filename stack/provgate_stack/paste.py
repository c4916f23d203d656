"""Lines for the user to paste that talk to a running gateway."""

from __future__ import annotations

import base64
from typing import Final

_TEMPLATE: Final = """\
    .venv/bin/grpcurl -plaintext {address} list
    .venv/bin/grpcurl -plaintext -d '{{"id": "{base64}"}}' {address} provgate.v1.ProvenanceStorage/ContentFindFirst

    .venv/bin/python - <<'EOF'
    from provgate_storage import get_provenance_storage
    with get_provenance_storage(cls="grpc", url="{address}") as storage:
        print(storage.content_find_first(bytes.fromhex("{hexadecimal}")))
    EOF"""


def lines_to_paste(address: str, content_id: str) -> str:
    """Returns lines for grpcurl and for Python that ask a gateway where a content first appeared.

    Args:
        address: of the gateway.
        content_id: 40 hexadecimal digits. grpcurl wants ids in base64, as JSON has no bytes.
    """
    encoded = base64.b64encode(bytes.fromhex(content_id)).decode("ascii")
    return _TEMPLATE.format(address=address, base64=encoded, hexadecimal=content_id)
