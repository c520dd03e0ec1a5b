#!/usr/bin/env bash
# Copies a snapshot of one Apache Cassandra server into FOLDER, one folder for each table: cql-snapshot.sh FOLDER KEYSPACE
# For `natterjack backup --snapshot`. CASSANDRA_DATA: the server's data folder (data_file_directories). NODETOOL: how nodetool is called,
# if not "nodetool". With several servers run it on each of them, into a folder of its own, from a script that ends when all are through.
set -euo pipefail
folder="$1" keyspace="$2"
data="${CASSANDRA_DATA:?the data folder of the server (data_file_directories)}"
nodetool="${NODETOOL:-nodetool}"
tag="natterjack-$(date +%s)-$$"
# Flushes first, so everything that was written is in the files. NODETOOL may have arguments of its own.
$nodetool snapshot --tag "$tag" -- "$keyspace"
trap '$nodetool clearsnapshot -t "$tag" -- "$keyspace" >/dev/null' EXIT
mkdir -p "$folder"
found=0
for snapshot in "$data/$keyspace"/*/snapshots/"$tag"; do
    [ -d "$snapshot" ] || continue
    table="$(basename "$(dirname "$(dirname "$snapshot")")")"
    # A table's folder is called NAME-ID.
    mkdir -p "$folder/${table%-*}"
    cp -a "$snapshot/." "$folder/${table%-*}/"
    found=$((found + 1))
done
[ "$found" -gt 0 ] || { echo "no snapshot of $keyspace is in $data; is it the data folder of this server?" >&2; exit 1; }
