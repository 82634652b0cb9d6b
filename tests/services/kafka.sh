#!/usr/bin/env bash
# usage: tests/services/kafka.sh install | classpath
# A real Apache Kafka, one broker: its jars by Maven, under target/.
#   install     fetches them when they are missing
#   classpath   prints what `java -cp` takes; tests/live/kafka_server.rs starts servers and the console clients with it
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
version=4.1.0
dir="$root/target/test-services/kafka-$version"

installed() { [ -e "$dir/complete" ]; }

install() {
  installed && return
  echo "kafka.sh: fetching Apache Kafka $version into target/test-services/kafka-$version" >&2
  rm -rf "$dir"
  mkdir -p "$dir"
  cat >"$dir/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>opmas.test</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
XML
  (cd "$dir" && mvn --batch-mode --quiet dependency:copy-dependencies -DoutputDirectory="$dir/libs") ||
    { echo "kafka.sh: Maven could not fetch Apache Kafka $version" >&2; rm -rf "$dir"; exit 1; }
  touch "$dir/complete"
}

case "${1:-}" in
  install) install ;;
  classpath)
    installed || { echo "kafka.sh: Apache Kafka is missing; run tests/services/kafka.sh install" >&2; exit 1; }
    echo "$dir/libs/*"
    ;;
  *) sed -n 2,5p "$0" >&2; exit 2 ;;
esac
