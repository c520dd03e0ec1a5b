#!/usr/bin/env bash
# Holds docs/openapi.json and a running system against each other: openapi-spec-validator on the document, then schemathesis, which makes
# requests from it, valid and invalid ones, and judges the answers. Ends with an error if either finds something.
#
# NATTERJACK_BIN: the program under test (target/fast/natterjack if not set). SECONDS_OF_TESTS: how long it goes on (120). What is tried is
# new each time; a failure names its seed, `--seed N` behind this script's name repeats it. Further arguments go to schemathesis, too.
set -euo pipefail
cd "$(dirname "$0")/.."

binary="${NATTERJACK_BIN:-target/fast/natterjack}"
[ -x "$binary" ] || { echo "$binary is missing: make build, or name one in NATTERJACK_BIN" >&2; exit 1; }
export NATTERJACK_NATS_SERVER="${NATTERJACK_NATS_SERVER:-$(scripts/fetch-nats-server.sh)}"

tools=.cache/openapi-check
if [ ! -x "$tools/bin/schemathesis" ]; then
    echo "fetching schemathesis and openapi-spec-validator into $tools" >&2
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5 openapi-spec-validator==0.9.0
fi
"$tools/bin/openapi-spec-validator" docs/openapi.json

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
work="$(mktemp -d)"
up=""
finish() {
    if [ -n "$up" ] && kill -0 "$up" 2>/dev/null; then
        kill "$up"
        wait "$up" || true
    fi
    rm -rf "$work"
}
trap finish EXIT

port="$(free_port)"
# Nobody is told to come more slowly.
"$binary" up --data "$work/data" --port "$port" --nats-port "$(free_port)" \
    --set limits.requests_per_user=0 --set limits.logins_per_name=0 >"$work/log" 2>&1 &
up=$!
edge="http://127.0.0.1:$port"
for _ in $(seq 120); do
    if curl -fs "$edge/ready" >/dev/null 2>&1; then break; fi
    kill -0 "$up" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.5
done
registered="$(curl -fsS -H 'Content-Type: application/json' -d '{"name":"checker","password":"a password of hers"}' "$edge/v1/register")"
token="$(python3 -c 'import json, sys; print(json.load(sys.stdin)["access"])' <<<"$registered")"

# Status of the run: 0 nothing was found.
found=0
SCHEMATHESIS_HOOKS=scripts/openapi_check_hooks.py NATTERJACK_TOKEN="$token" "$tools/bin/schemathesis" --config-file scripts/openapi-check.toml run "$edge/v1/openapi.json" \
    --max-time "${SECONDS_OF_TESTS:-120}" --no-color "$@" || found=$?
if grep -q 'panicked at' "$work/log"; then
    grep -A3 'panicked at' "$work/log" >&2
    found=1
fi
exit "$found"
