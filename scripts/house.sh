#!/usr/bin/env bash
# Prints how the house stands: files over 350 lines, names of several types, circles between rooms, spans.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo test --profile fast --locked --quiet --workspace --test invariants -- --ignored --nocapture house
