"""The PostgreSQL storage."""

from provgate_storage.postgresql.settings import PostgreSqlSettings
from provgate_storage.postgresql.storage import ProvenanceStoragePostgreSql

__all__ = ["PostgreSqlSettings", "ProvenanceStoragePostgreSql"]
