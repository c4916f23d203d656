#!/bin/sh
# Checks the protos for changes that break clients of the last release; CONTRIBUTING.md says when the baseline changes.
set -eu

cd "$(dirname "$0")/.."
.venv/bin/buf breaking --against protos/baseline/released.binpb
