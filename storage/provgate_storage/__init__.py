"""The storage interface, its model and merge rules, and the databases behind it."""

from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import EntityType, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.registry import RABBITMQ_INSTEAD, get_provenance_storage

__all__ = [
    "RABBITMQ_INSTEAD",
    "EntityType",
    "ProvenanceResult",
    "ProvenanceStorageInterface",
    "RelationData",
    "RelationType",
    "RevisionData",
    "get_provenance_storage",
]
