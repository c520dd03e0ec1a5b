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

of_crates=$(binaries no)
of_clusters=$(binaries yes)
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# A shell lets its background jobs ignore Ctrl-C; this one is to end with the rest.
# shellcheck disable=SC2086
env --default-signal=INT $cargo test "$@" --workspace $of_crates >"$said" 2>&1 &
crates=$!
failed=0
# shellcheck disable=SC2086
$cargo test "$@" --workspace $of_clusters || failed=$?
wait "$crates" || failed=$?
cat "$said"
exit "$failed"
