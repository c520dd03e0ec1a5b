#!/usr/bin/env bash
# Follows the page "From `up` to three machines" of docs/operations.md word by word: its files, its commands, on three addresses of
# 127.0.0.0/8 instead of 10.0.0.1 to 10.0.0.3. Then people chat through HAProxy, one machine is killed, and they chat on.
# Needs a built natterjack (NATTERJACK=path), nats-server, HAProxy, openssl, and Java for Apache Cassandra. Takes about three minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
page=docs/operations.md
natterjack=$(realpath "${NATTERJACK:-target/fast/natterjack}")
nats_server=$(realpath "$(scripts/fetch-nats-server.sh)")
command -v haproxy >/dev/null || { echo "SKIPPED: haproxy is not installed" >&2; exit 0; }
scripts=$PWD/scripts
folder=$(mktemp -d /tmp/natterjack-three.XXXXXX)
net=127.$((RANDOM % 100 + 100)).$((RANDOM % 200))
pids=()
declare -A of # pids of a machine

finish() {
    status=$?
    for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ $status -eq 0 ]; then rm -rf "$folder"; else
        for log in "$folder"/*/*.log; do echo "---- $log"; tail -n 15 "$log"; done >&2
        echo "---- FAILED; everything is in $folder" >&2
    fi
}
trap finish EXIT

# The block number $2 with this mark, without its fence.
block() {
    awk -v mark="<!-- three: $1 -->" -v n="${2:-1}" '
        $0 == "<!-- end -->" { on = 0 }
        on && !/^```/ { print; some = 1 }
        $0 == mark && ++seen == n { on = 1 }
        END { exit !some }' "$page" || { echo "$page has no block ${2:-1} of \"$1\"" >&2; exit 1; }
}

# As it is on machine $1 (1 to 3): what stands for it in the page is its own.
here() {
    sed -e "s#10\.0\.0\.\([123]\)#$net.\1#g" -e "s#/etc/natterjack#$folder/$1#g" -e "s#/var/lib/nats#$folder/$1/nats#g" \
        -e "s#/etc/ssl/chat.pem#$folder/chat.pem#g" -e "s#/usr/local/bin/natterjack#natterjack#g" \
        -e "s#bind :443#bind $net.3:8443#" -e "s#wss://chat.example.org#wss://$net.3:8443#g"
}

# Another machine's of what the page writes for the first one.
become() { sed -e "s#server_name: n1#server_name: n$1#" -e "s#edge-1#edge-$1#" -e "/routes:/! s#10\.0\.0\.1#10.0.0.$1#g"; }

# Stays: on machine $1, named $2.
stay() {
    local machine=$1 name=$2
    shift 2
    (exec "$@" >"$folder/$machine/$name.log" 2>&1) &
    pids+=($!)
    of[$machine]="${of[$machine]:-} $!"
}

# Until it succeeds, for up to $1 s.
until_ok() {
    local limit=$((SECONDS + $1))
    shift
    until "$@" >"$folder/last.log" 2>&1; do
        [ $SECONDS -lt $limit ] || { echo "not in time: $*" >&2; cat "$folder/last.log" >&2; exit 1; }
        sleep 0.5
    done
}

mkdir "$folder"/{bin,once,1,2,3}
ln -s "$natterjack" "$folder/bin/natterjack"
ln -s "$nats_server" "$folder/bin/nats-server"
export PATH="$folder/bin:$PATH"

echo "1. secrets"
for n in 1 2; do block "run once" $n | here once | (cd "$folder/once" && bash -euo pipefail 2>>openssl.log); done
for m in 1 2 3; do
    (cd "$folder/once" && cp ca.pem authorization.conf ./*.env "$net.$m.pem" "$net.$m.key" "../$m/")
done
cat "$folder/once/$net.3.pem" "$folder/once/$net.3.key" >"$folder/chat.pem"

echo "2. nats-server"
for m in 1 2 3; do
    block "file nats.conf" | become $m | here $m >"$folder/$m/nats.conf"
    stay $m nats-server bash -c "exec $(block "run on every machine, stays" | here $m)"
done

echo "3. CQL servers"
for m in 1 2 3; do
    stay $m cassandra env NATTERJACK_CQL= "$scripts/cassandra.sh" "$net.$m" "$folder/$m/cql" "$net.1"
    until_ok 240 bash -c "exec 3<>/dev/tcp/$net.$m/9042"
done

echo "4. configuration"
for m in 1 2 3; do
    block "file natterjack.toml" | here $m >"$folder/$m/natterjack.toml"
    block "file natterjack@.service" | here $m >"$folder/$m/natterjack@.service"
    block "append edge.env" | become $m | here $m >>"$folder/$m/edge.env"
done

echo "5. provision"
block "run on 10.0.0.1" 1 | here 1 >"$folder/provision.sh"
until_ok 120 bash -euo pipefail "$folder/provision.sh"

echo "6. roles"
roles=$(block "roles on 10.0.0.1 10.0.0.2" | grep -o 'natterjack@[a-z]*' | cut -d@ -f2)
for m in 1 2; do
    for role in $roles; do
        unit=$(sed "s/%i/$role/g" "$folder/$m/natterjack@.service")
        environment=$(sed -n 's/^EnvironmentFile=//p' <<<"$unit")
        start=$(sed -n 's/^ExecStart=//p' <<<"$unit")
        stay $m "$role" bash -c "set -a; . '$environment'; exec $start"
    done
    until_ok 60 curl -sf "http://$net.$m:8080/ready"
done
block "run on 10.0.0.1" 2 | here 1 >"$folder/doctor.sh"
until_ok 60 bash -euo pipefail "$folder/doctor.sh"
cat "$folder/last.log"
! grep -q "^FAIL" "$folder/last.log"

echo "7. HAProxy"
block "file haproxy.cfg" | here 3 >"$folder/3/haproxy.cfg"
stay 3 haproxy haproxy -db -f "$folder/3/haproxy.cfg"
until_ok 30 curl -sf --cacert "$folder/1/ca.pem" "https://$net.3:8443/ready"

echo "8. chat"
chat=$(block chat | here 3)
export NATTERJACK_PASSWORD="correct horse battery" NATTERJACK_CA="$folder/1/ca.pem"
# Whoever is there already logs in without --register.
as() { sed "s#--name alice --register#--name $1#" <<<"$chat"; }
register() { timeout 60 bash -c "$(sed "s#--name alice#--name $1#" <<<"$chat") --plain" </dev/null; }
heard() { grep -q "$1" "$folder/3/bob.log"; }
say() { timeout 60 bash -c "$(as alice) --plain --to bob" <<<"$1"; }
register alice
register bob
stay 3 bob bash -c "exec $(as bob) --json --to alice --follow forever </dev/null"
say "hello from three machines"
until_ok 30 heard "hello from three machines"

echo "9. a machine dies"
for pid in ${of[1]}; do kill -KILL "$pid" 2>/dev/null || true; done
until_ok 120 say "one of them died"
until_ok 60 heard "one of them died"
echo "ok: the page works, and the installation outlives a machine"
