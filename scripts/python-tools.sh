#!/usr/bin/env bash
# Python packages in a folder of their own: scripts/python-tools.sh NAME IMPORTS PACKAGE... makes .cache/NAME unless it can import IMPORTS
# already, and prints its python. Ends with an error, and leaves nothing, if they cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=".cache/$1" imports="$2"
shift 2
if ! "$tools/bin/python" -c "import $imports" 2>/dev/null; then
    echo "fetching $* into $tools" >&2
    rm -rf "$tools"
    if ! { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet --disable-pip-version-check "$@"; } >&2; then
        rm -rf "$tools"
        exit 1
    fi
fi
echo "$tools/bin/python"
