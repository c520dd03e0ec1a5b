#!/usr/bin/env bash
# Python's aiohttp against a running edge: its session keeps connections and opens WebSockets over them (aiohttp_check.py).
# NATTERJACK_BIN: see with-system.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! python="$(scripts/python-tools.sh aiohttp-check aiohttp aiohttp==3.14.5)"; then
    echo "SKIPPED: aiohttp cannot be installed here, so nothing was shown about it" >&2
    exit 0
fi
exec scripts/with-system.sh -- "$python" scripts/aiohttp_check.py
