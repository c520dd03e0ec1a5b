#!/usr/bin/env bash
# Runs one node of Apache Cassandra for tests in the foreground: cassandra.sh ADDRESS FOLDER [SEED]
# SEED is the address of the first node of several. CASSANDRA_TOLD is what clients are told to connect to, if not ADDRESS.
# CQL on port 9042 and its own traffic on port 7000 of ADDRESS (any of 127.0.0.0/8), all data in FOLDER. Not for production: 512 MB of
# memory, no authentication, and the log of writes reaches the disk every 10 s.
set -euo pipefail
address="$1"
seed="${3:-$1}"
mkdir -p "$2"
folder="$(cd "$2" && pwd)"
lib="$("$(dirname "$0")/fetch-cassandra.sh")"
[ -n "$lib" ] || { echo "NATTERJACK_CQL names a server already" >&2; exit 1; }

cat >"$folder/cassandra.yaml" <<YAML
cluster_name: natterjack-test
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
num_tokens: 1
commitlog_sync: periodic
commitlog_sync_period: 10s
commitlog_segment_size: 8MiB
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "$seed:7000"
listen_address: $address
storage_port: 7000
rpc_address: $address
broadcast_rpc_address: ${CASSANDRA_TOLD:-$address}
auto_bootstrap: false
native_transport_port: 9042
start_native_transport: true
endpoint_snitch: SimpleSnitch
authenticator: AllowAllAuthenticator
auto_snapshot: false
memtable_allocation_type: heap_buffers
data_file_directories: ["$folder/data"]
commitlog_directory: "$folder/commitlog"
hints_directory: "$folder/hints"
saved_caches_directory: "$folder/saved_caches"
cdc_raw_directory: "$folder/cdc_raw"
YAML
cat >"$folder/logback.xml" <<'XML'
<configuration>
  <appender name="stderr" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>%d %-5level %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="stderr"/></root>
</configuration>
XML

# What Cassandra's own start script passes on Java 17.
java=(java -Xms512m -Xmx512m -XX:+UseSerialGC -Djdk.attach.allowAttachSelf=true)
for package in java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/sun.nio.ch java.management.rmi/com.sun.jmx.remote.internal.rmi \
    java.rmi/sun.rmi.registry java.rmi/sun.rmi.server java.sql/java.sql jdk.unsupported/sun.misc; do
    java+=("--add-exports=$package=ALL-UNNAMED")
done
for package in java.lang java.lang.module java.io java.nio java.util java.util.concurrent java.util.concurrent.atomic jdk.internal.loader \
    jdk.internal.ref jdk.internal.reflect jdk.internal.math jdk.internal.module jdk.internal.util.jar sun.nio.ch; do
    java+=("--add-opens=java.base/$package=ALL-UNNAMED")
done
java+=(--add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED)

# Alone, it need not wait for others; a second node must hear from the first. No port for JMX: two nodes could not share it.
ring_delay=100
[ "$seed" = "$address" ] || ring_delay=4000
exec "${java[@]}" \
    "-Dcassandra.config=file://$folder/cassandra.yaml" "-Dcassandra.storagedir=$folder" "-Dlogback.configurationFile=file://$folder/logback.xml" \
    -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.superuser_setup_delay_ms=0 -Dcassandra.ring_delay_ms=$ring_delay \
    -Dcassandra-foreground=yes -cp "$lib/*" org.apache.cassandra.service.CassandraDaemon
