#!/usr/bin/env bash
# usage: tests/services/nats.sh install | run OPTIONS…
# A real NATS server under target/.
#   install   builds it with Go when it is missing
#   run       starts it in the foreground with options of nats-server
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin="$here/../../target/test-services"
version=v2.15.2

installed() { [ "$("$bin/nats-server" --version 2>/dev/null)" = "nats-server: $version" ]; }

install() {
  installed && return
  command -v go >/dev/null || { echo "nats.sh: Go is missing; install it (golang-go, or go.dev/dl)" >&2; exit 1; }
  echo "nats.sh: building nats-server $version into target/test-services" >&2
  mkdir -p "$bin"
  GOBIN=$(cd "$bin" && pwd) go install "github.com/nats-io/nats-server/v2@$version" || { echo "nats.sh: go install failed" >&2; exit 1; }
}

case "${1:-}" in
  install) install ;;
  run)
    shift
    installed || { echo "nats.sh: nats-server is missing; run tests/services/nats.sh install" >&2; exit 1; }
    exec "$bin/nats-server" "$@"
    ;;
  *) sed -n 2,5p "$0" >&2; exit 2 ;;
esac
