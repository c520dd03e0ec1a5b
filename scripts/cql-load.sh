#!/usr/bin/env bash
# Loads what cql-snapshot.sh has copied into an empty keyspace of one Apache Cassandra server: cql-load.sh FOLDER KEYSPACE
# The tables must be there: `natterjack provision` of the same build made them, on a NATS that is emptied again afterwards.
# NODETOOL: how nodetool is called, if not "nodetool".
set -euo pipefail
folder="$(cd "$1" && pwd)" keyspace="$2"
nodetool="${NODETOOL:-nodetool}"
for table in "$folder"/*/; do
    name="$(basename "$table")"
    compgen -G "$table*-Data.db" >/dev/null || continue
    $nodetool import --copy-data "$keyspace" "$name" "$table"
done
