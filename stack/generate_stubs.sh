#!/bin/sh
# Generates the stubs from the protos, below the directory of the first argument.
set -eu

out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

# protoc finds the plugins of mypy-protobuf on the PATH.
PATH=$(pwd)/.venv/bin:$PATH .venv/bin/python -m grpc_tools.protoc -I protos \
    --python_out="$out" --grpc_python_out="$out" \
    --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
    protos/provgate/v1/*.proto

# Only the service needs gRPC stubs; the plugins write empty ones for the other files.
cd "$out/provgate/v1"
rm -f model_pb2_grpc.py* errors_pb2_grpc.py*
