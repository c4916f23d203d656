#!/bin/sh
# Compares the protos with those of the last release; CONTRIBUTING.md says when the baseline is replaced.
set -eu

cd "$(dirname "$0")/.."
.venv/bin/buf breaking --against protos/baseline/released.binpb
