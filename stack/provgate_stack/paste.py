"""Lines for the user to paste that talk to a running gateway."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from typing import Final

_TEMPLATE: Final = """\
    .venv/bin/provgate index {repository}
    .venv/bin/provgate first {hexadecimal}

    .venv/bin/grpcurl -plaintext {address} list
    .venv/bin/grpcurl -plaintext -d '{{"id": "{base64}"}}' {address} provgate.v1.ProvenanceStorage/ContentFindFirst

    .venv/bin/python - <<'EOF'
    from provgate_storage import get_provenance_storage
    with get_provenance_storage(cls="grpc", url="{address}") as storage:
        print(storage.content_find_first(bytes.fromhex("{hexadecimal}")))
    EOF"""


def lines_to_paste(address: str, repository: Path, content_id: str) -> str:
    """Returns lines that index a repository and ask where a content first appeared: a shell's, grpcurl's and Python's.

    Args:
        address: of the gateway.
        repository: to index.
        content_id: 40 hexadecimal digits. grpcurl wants ids in base64, as JSON has no bytes.
    """
    return _TEMPLATE.format(
        address=address,
        repository=shlex.quote(str(repository)),
        hexadecimal=content_id,
        base64=base64.b64encode(bytes.fromhex(content_id)).decode("ascii"),
    )
