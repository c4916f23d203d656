"""The git indexer: reads the commits and trees of a repository, never its blobs, and writes the provenance index.

Start with `decide` (what a revision adds to the index), `pipeline` (in which order it is written) and `indexer` (the
loop around both).
"""

from provgate_client.git.indexer import index_repository
from provgate_client.git.progress import IndexProgress, IndexReport, LeftOut, LeftOutReason
from provgate_client.git.settings import (
    GitIndexError,
    GitReaderMissingError,
    IndexSettings,
    RepositoryError,
    StorageGaveUpError,
)

__all__ = [
    "GitIndexError",
    "GitReaderMissingError",
    "IndexProgress",
    "IndexReport",
    "IndexSettings",
    "LeftOut",
    "LeftOutReason",
    "RepositoryError",
    "StorageGaveUpError",
    "index_repository",
]
