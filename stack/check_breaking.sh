#!/bin/sh
# Compares the protos with those of the last release, or of the last commit before the first release.
set -eu

cd "$(dirname "$0")/.."

if ! git rev-parse --verify --quiet HEAD >/dev/null; then
    echo "buf breaking: this is no clone with a commit, so there is nothing to compare with"
    exit 0
fi
against=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || git rev-parse HEAD)
if [ -z "$(git ls-tree "$against" buf.yaml)" ]; then
    echo "buf breaking: $against has no protos to compare with"
    exit 0
fi
# Not buf's own reading of .git: it clones, which a shallow clone or one of another owner refuses.
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$against" buf.yaml protos | tar -x -C "$before"
.venv/bin/buf breaking --against "$before"
