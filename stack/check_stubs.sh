#!/bin/sh
# Compares the committed stubs with freshly generated ones.
set -eu

cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
stack/generate_stubs.sh "$fresh"
if ! diff -r --exclude='*.proto' --exclude='__*' --exclude=py.typed "$fresh/provgate/v1" protos/provgate/v1 >&2; then
    echo "The stubs are out of date: run \`make protos\`" >&2
    exit 1
fi
