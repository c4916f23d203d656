"""The provenance index: its interface, its model and merge rules, and the databases behind it.

- `interface`, `model`, `errors`: the contract, which the client's adapter fulfils too.
- `registry`: finds a storage by the name in the configuration. `settings`: what every database takes.
- `rows`: the plain rows between packages: their checks, and their merge rules.
- `database`: what all databases have in common. `postgresql`, `mongodb`: one folder for each database.

To add a database, add a folder beside `postgresql` with

1. `settings`: a `DatabaseSettings` with the fields that locate the database,
2. `reads`: a `Reads` (`database/reads.py`): nine queries, and the `RowStream` that runs them,
3. `storage`: a subclass of `LocalStorage` (`database/local.py`) that implements its abstract methods and names its
   settings in `settings_type`,
4. an entry point in the group `provgate.storage` of pyproject.toml, or of another distribution,

and run the tests: a subclass of `ProvenanceStorageContract` (`tests/contract/contract.py`) and one of
`LocalStorageContract` (`tests/integration/local_storage.py`).

To add a read, declare it in `interface`, in `database/reads.py` and `database/local.py`, and write its query in
`reads` of each database.
"""

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
