"""The storage interface over a gRPC channel to the gateway."""

from provgate_client.adapter.settings import GrpcSettings
from provgate_client.adapter.storage import ProvenanceStorageGrpc

__all__ = ["GrpcSettings", "ProvenanceStorageGrpc"]
