#!/usr/bin/env bash
# Runs a command beside a system of its own: scripts/with-system.sh [flags of `natterjack up`] -- command...
# The command finds the edge in NATTERJACK_EDGE (http://host:port). The system and its data are gone afterwards. Ends as the command does, or
# with an error if a process of the system has panicked.
#
# NATTERJACK_BIN: the program under test (target/fast/natterjack if not set).
set -euo pipefail
cd "$(dirname "$0")/.."

flags=()
while [ "${1:-}" != "--" ]; do
    [ $# -gt 0 ] || { echo "no command: $0 [flags] -- command..." >&2; exit 2; }
    flags+=("$1")
    shift
done
shift

binary="${NATTERJACK_BIN:-target/fast/natterjack}"
[ -x "$binary" ] || { echo "$binary is missing: make build, or name one in NATTERJACK_BIN" >&2; exit 1; }
export NATTERJACK_NATS_SERVER="${NATTERJACK_NATS_SERVER:-$(scripts/fetch-nats-server.sh)}"

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
"$binary" up --data "$work/data" --port "$port" --nats-port "$(free_port)" "${flags[@]}" >"$work/log" 2>&1 &
up=$!
export NATTERJACK_EDGE="http://127.0.0.1:$port"
ready=""
for _ in $(seq 120); do
    if curl -fs "$NATTERJACK_EDGE/ready" >/dev/null 2>&1; then
        ready=1
        break
    fi
    kill -0 "$up" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.5
done
[ -n "$ready" ] || { echo "the system is not ready after a minute:" >&2; cat "$work/log" >&2; exit 1; }

status=0
"$@" || status=$?
if grep -q 'panicked at' "$work/log"; then
    grep -A3 'panicked at' "$work/log" >&2
    status=1
fi
exit "$status"
