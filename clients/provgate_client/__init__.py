"""The client: the storage interface over gRPC, the command line, and the git indexer."""
