#!/usr/bin/env bash
# Prints the folder with the jars of Apache Cassandra for tests, fetched once with Maven into .cache/cassandra.
# Nothing is fetched, and nothing printed, when NATTERJACK_CQL names a server that runs already.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=5.0.8
[ -z "${NATTERJACK_CQL:-}" ] || exit 0

say() {
    echo "$1" >&2
    echo "The tests of the CQL store need Java 17 and Maven (Debian: apt-get install openjdk-17-jre-headless maven)," >&2
    echo "or the address of a server that runs already: NATTERJACK_CQL=host:port (ScyllaDB or Apache Cassandra 5)." >&2
    exit 1
}

command -v java >/dev/null || say "there is no java"
major="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)"
# Cassandra 5.0 runs on 11 and 17; the options in cassandra.sh are those for 17.
[ "${major:-0}" -ge 17 ] || say "java is version ${major:-unknown}"

target=".cache/cassandra/$VERSION"
if [ -e "$target/complete" ]; then
    echo "$PWD/$target/lib"
    exit 0
fi
command -v mvn >/dev/null || say "there is no mvn, and Cassandra was not fetched yet"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cat >"$work/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>natterjack</groupId>
  <artifactId>cassandra-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>$VERSION</version></dependency>
  </dependencies>
</project>
XML
echo "fetching Apache Cassandra $VERSION" >&2
(cd "$work" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib >&2) || say "could not fetch Apache Cassandra $VERSION"
# The mark comes last: an interrupted fetch leaves nothing that looks whole.
mkdir -p "$target"
rm -rf "$target/lib"
cp -r "$work/lib" "$target/lib"
touch "$target/complete"
echo "$PWD/$target/lib"
