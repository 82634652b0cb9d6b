#!/usr/bin/env bash
# usage: tests/run.sh [--long] [FILTER]
# Installs or fetches what is missing, runs everything, and fails loudly when a part is missing; it never skips silently.
#   --long   storms and soaks in full
#   FILTER   only tests whose name holds it
# The live tests make network namespaces and need root; as another user it uses sudo.
set -euo pipefail
cd "$(dirname "$0")/.."

long=0; filter=()
for argument in "$@"; do
  case "$argument" in
    --long) long=1 ;;
    -h|--help) sed -n 2,6p "$0"; exit 0 ;;
    -*) echo "run.sh: unknown option $argument; see --help" >&2; exit 2 ;;
    *) filter=("$argument") ;;
  esac
done
export OPMAS_LONG=$long

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env=PATH,HOME,OPMAS_LONG,CARGO_TARGET_DIR "$@"; fi; }

# Debian's packages that the live tests start: the router's daemons and tools; and those that judge what we ship.
packages=(dropbear-bin openssh-server sudo busybox dnsmasq-base ppp nftables iptables ipset conntrack iproute2 openssh-client openssl util-linux procps python3 python3-venv bsdutils curl man-db prometheus systemd e2fsprogs)
# A JDK and Maven of any origin do.
command -v java >/dev/null || packages+=(default-jre-headless)
command -v mvn >/dev/null || packages+=(maven)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "run.sh: installing ${missing[*]}" >&2
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The SMTP receiver, the NATS server, Apache Kafka, and the validators.
tests/services/smtp.sh install
tests/services/nats.sh install
tests/services/kafka.sh install
tests/services/checks.sh install

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
cargo test --locked --lib --bins "${filter[@]}"
cargo test --locked --test pure "${filter[@]}"
# In a network of their own, one at a time: they share its router. Half of them wait beside the other half, in another network.
network() {
  as_root unshare --net --mount bash -c 'mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up && exec "$@"' - "$@"
}
live() { network "$(command -v cargo)" test --locked --test live -- --test-threads=1 "$@"; }
cargo test --locked --test live --no-run
if [ ${#filter[@]} -gt 0 ]; then
  live "${filter[@]}"
else
  half=(nats:: kafka:: publish:: replay:: durability:: storm::)
  live "${half[@]}" >target/live.log 2>&1 & other=$!
  trap 'kill "$other" 2>/dev/null || true' EXIT
  failed=0
  live "${half[@]/#/--skip=}" || failed=1
  wait "$other" || failed=1
  cat target/live.log
  [ $failed = 0 ]
fi
echo "run.sh: everything passed"
