"""The gRPC side: the servicer, requests to rows, rows to responses, and what wraps every call."""
