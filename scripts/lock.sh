#!/bin/sh
# Writes the lock files again from pyproject.toml, with the hash of every file that the registry publishes.
# No index address is written: where packages come from is the business of the machine that installs them.
set -eu
cd "$(dirname "$0")/.."
command -v uv >/dev/null 2>&1 || { echo "make lock needs uv (pip install uv)" >&2; exit 1; }

lock() { # lock OUTPUT ARGUMENTS...
    output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --output-file "$output" "$@"
}

lock requirements.txt pyproject.toml
lock requirements-build.txt --group build
lock requirements-postgres.txt --constraint requirements.txt pyproject.toml --extra postgres
lock requirements-dev.txt --constraint requirements-postgres.txt --constraint requirements-build.txt pyproject.toml --group dev
lock bench/peers/requirements.txt bench/peers/requirements.in
if grep -nE 'https?://' requirements.txt requirements-build.txt requirements-postgres.txt requirements-dev.txt bench/peers/requirements.txt; then
    echo "a lock file names an address" >&2
    exit 1
fi
