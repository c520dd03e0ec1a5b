#!/usr/bin/env bash
# Holds docs/openapi.json and a running system against each other: openapi-spec-validator on the document, then schemathesis, which makes
# requests from it, valid and invalid ones, and judges the answers. Ends with an error if either finds something.
#
# NATTERJACK_BIN: see with-system.sh. SECONDS_OF_TESTS: how long it goes on (120). What is tried is new each time; a failure names its seed,
# `--seed N` behind this script's name repeats it. Further arguments go to schemathesis, too.
set -euo pipefail
cd "$(dirname "$0")/.."

python="$(scripts/python-tools.sh openapi-check "schemathesis, openapi_spec_validator" schemathesis==4.32.5 openapi-spec-validator==0.9.0)"

if [ -z "${NATTERJACK_EDGE:-}" ]; then
    "$python" -m openapi_spec_validator docs/openapi.json
    # Nobody is told to come more slowly.
    exec scripts/with-system.sh --set limits.requests_per_user=0 --set limits.logins_per_name=0 -- scripts/openapi-check.sh "$@"
fi

registered="$(curl -fsS -H 'Content-Type: application/json' -d '{"name":"checker","password":"a password of hers"}' "$NATTERJACK_EDGE/v1/register")"
NATTERJACK_TOKEN="$(python3 -c 'import json, sys; print(json.load(sys.stdin)["access"])' <<<"$registered")"
export NATTERJACK_TOKEN SCHEMATHESIS_HOOKS=scripts/openapi_check_hooks.py
exec "$python" -m schemathesis.cli --config-file scripts/openapi-check.toml run "$NATTERJACK_EDGE/v1/openapi.json" \
    --max-time "${SECONDS_OF_TESTS:-120}" --no-color "$@"
