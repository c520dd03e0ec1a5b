#!/usr/bin/env bash
# Python's aiohttp against a running edge: its session keeps connections and opens WebSockets over them (aiohttp_check.py).
# NATTERJACK_BIN: see with-system.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.cache/aiohttp-check
if ! "$tools/bin/python" -c 'import aiohttp' 2>/dev/null; then
    echo "fetching aiohttp into $tools" >&2
    rm -rf "$tools"
    if ! { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet --disable-pip-version-check aiohttp==3.14.5; }; then
        rm -rf "$tools"
        echo "SKIPPED: aiohttp cannot be installed here, so nothing was shown about it" >&2
        exit 0
    fi
fi
exec scripts/with-system.sh -- "$tools/bin/python" scripts/aiohttp_check.py
