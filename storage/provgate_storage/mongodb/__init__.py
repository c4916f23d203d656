"""The MongoDB storage."""

from provgate_storage.mongodb.settings import MongoDbSettings
from provgate_storage.mongodb.storage import ProvenanceStorageMongoDb

__all__ = ["MongoDbSettings", "ProvenanceStorageMongoDb"]
