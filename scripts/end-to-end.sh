#!/usr/bin/env bash
# Runs every test binary of the workspace with these flags of cargo: those of the crates beside those of `tests/`, whose clusters mostly
# wait. What the former said is printed when it is over.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

binaries() { # in tests/: yes or no
    $cargo metadata --no-deps --locked --format-version 1 | python3 -c '
import json, sys
wanted = sys.argv[1] == "yes"
for package in json.load(sys.stdin)["packages"]:
    if (package["name"] == "natterjack-tests") == wanted:
        for target in package["targets"]:
            if "test" in target["kind"]:
                print("--test", target["name"])
' "$1" | sort -u
}

said=$(mktemp)
trap 'rm -f "$said"' EXIT
# shellcheck disable=SC2046
{
    $cargo test "$@" --workspace $(binaries no) >"$said" 2>&1 & crates=$!
    failed=0
    $cargo test "$@" --workspace $(binaries yes) || failed=$?
    wait "$crates" || failed=$?
    cat "$said"
    exit "$failed"
}
