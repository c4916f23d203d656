"""The gRPC contract of provgate; `provgate.v1` holds the generated code."""
