#!/usr/bin/env bash
# usage: device.sh COMMAND DIR
#   up          make an OpenWrt-like router and its neighbours in network namespaces, wait until its ssh answers
#   down        end and remove all of it; also what an `up` that failed half way left
#   fw4-reload  load the firewall4 ruleset again, as `fw4 reload` does: only table `inet fw4` is flushed
#   fw4-stop    as `service firewall stop`: every table is deleted
#   flush-ours  delete table `inet opmas`
#   fw3-reload  as `fw3 reload`: rules with its comment and its own chains are made anew
#   fw3-stop    as `service firewall stop` there (`fw3 flush`): every chain of every table is emptied or deleted; sets stay
#   fw3-flush   empty the built-in chains of table mangle
#   reboot      every session, process, table and what was in /tmp is gone; firewall, log daemon and dropbear start again.
#               `reboot` on the router does the same by itself
#   cut|join    take the router's LAN cable to the manager out, and put it back
# Namespaces (prefix from OPMAS_ROUTER_PREFIX, default `opmas-`):
#   rt router: 192.168.1.1 and fd00:6f70::1 on br-lan, 198.51.100.2 on eth1
#   at attacker .66, ot other client .77, mg manager .2 on br-lan; fr far host 198.51.100.9 behind eth1
# `ip netns exec opmas-mg ssh -i DIR/id root@192.168.1.1`; the password is "secret".
# OPMAS_ROUTER_FIREWALL=fw3: an OpenWrt 21.02 with iptables-legacy and ipset, without nft; else fw4.
# Log lines go from logd.py to OPMAS_ROUTER_LOG (default udp:192.168.1.2:1514) under the host name OPMAS_ROUTER_NAME (default ap1).
# Needs root and Debian's dropbear-bin, busybox, nftables, iptables, ipset, conntrack, iproute2, openssh-client, openssl, procps, util-linux, python3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$here/../data
if [ $# -ne 2 ]; then sed -n 2,9p "$0" >&2; exit 2; fi
dir=$(realpath -m "$2")
R=$dir/root
p=${OPMAS_ROUTER_PREFIX:-opmas-}
log_to=${OPMAS_ROUTER_LOG:-udp:192.168.1.2:1514}
log_name=${OPMAS_ROUTER_NAME:-ap1}

firewall=${OPMAS_ROUTER_FIREWALL:-fw4}

in_rt() { ip netns exec "${p}rt" "$@"; }

# Ends what runs in the router, and nothing else.
halt() {
  for f in dropbear.pid logd.pid; do
    if [ -f "$dir/$f" ]; then kill -9 "$(cat "$dir/$f")" 2>/dev/null || true; rm -f "$dir/$f"; fi
  done
  ip netns pids "${p}rt" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
  rm -f "$R/dev/log"
}

down() {
  [ -d "$dir" ] && halt
  for n in rt at ot mg fr; do
    ip netns pids "$p$n" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns del "$p$n" 2>/dev/null || true
  done
}

network() {
  for n in rt at ot mg fr; do ip netns add "$p$n"; ip -n "$p$n" link set lo up; done
  ip -n "${p}rt" link add br-lan type bridge
  ip -n "${p}rt" link set br-lan up
  ip -n "${p}rt" addr add 192.168.1.1/24 dev br-lan
  ip -n "${p}rt" addr add fd00:6f70::1/64 dev br-lan nodad
  for c in at:66 ot:77 mg:2; do
    n=${c%:*}; a=${c#*:}
    ip link add eth0 netns "$p$n" type veth peer name "l$n" netns "${p}rt"
    ip -n "${p}rt" link set "l$n" master br-lan up
    ip -n "$p$n" link set eth0 up
    ip -n "$p$n" addr add "192.168.1.$a/24" dev eth0
    ip -n "$p$n" addr add "fd00:6f70::$a/64" dev eth0 nodad
    ip -n "$p$n" route add default via 192.168.1.1
    ip -n "$p$n" route add default via fd00:6f70::1
  done
  ip link add eth0 netns "${p}fr" type veth peer name eth1 netns "${p}rt"
  ip -n "${p}fr" link set eth0 up
  ip -n "${p}rt" link set eth1 up
  ip -n "${p}fr" addr add 198.51.100.9/24 dev eth0
  ip -n "${p}rt" addr add 198.51.100.2/24 dev eth1
  # A default route as a router has one: the guard must know its gateway.
  ip -n "${p}rt" route add default via 198.51.100.9
  in_rt sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# Loading the file again after `flush table` is what `fw4 reload` sends in one transaction.
fw4() {
  { echo 'table inet fw4'; echo 'flush table inet fw4'; cat "$data/openwrt-fw4-default.nft"; } | in_rt nft -f -
}

# As fw3 writes them: every rule in a built-in chain has its comment, by which it finds them again.
fw3() {
  local t filter mangle
  for t in iptables ip6tables; do
    # Read before the restore, which holds the lock from its first line on.
    filter=$(in_rt $t-legacy -w -S | sed -n '/!fw3/s/^-A \([A-Z]\)/-D \1/p')
    mangle=$(in_rt $t-legacy -w -t mangle -S | sed -n '/!fw3/s/^-A/-D/p')
    { printf '*filter\n%s\n' "$filter"
      cat "$data/openwrt-fw3-default.rules"
      printf '*mangle\n%s\n' "$mangle"
      echo '-A FORWARD -o eth1 -p tcp -m tcp --tcp-flags SYN,RST SYN -m comment --comment "!fw3: Zone wan MTU fixing" -j TCPMSS --clamp-mss-to-pmtu'
      echo COMMIT; } | in_rt $t-legacy-restore -w --noflush
  done
}

fw3_flush() {
  local t table chain
  for t in iptables ip6tables; do
    for table in filter mangle; do
      for chain in INPUT FORWARD OUTPUT; do in_rt $t-legacy -w -t $table -P $chain ACCEPT; done
      in_rt $t-legacy -w -t $table -F
      in_rt $t-legacy -w -t $table -X
    done
  done
}

# The firewall as it is after a start of the router.
afresh() {
  if [ "$firewall" = fw3 ]; then fw3_flush; in_rt ipset destroy; fw3; else in_rt nft flush ruleset; fw4; fi
}

files() {
  mkdir -p "$R"/{bin,usr/sbin,etc/dropbear,root,proc,dev/pts,tmp,var/run}
  cp /usr/bin/busybox "$R/bin"
  cp /usr/sbin/dropbear /usr/bin/flock /usr/bin/pgrep "$R/usr/sbin"
  local release=24.10.4 t
  if [ "$firewall" = fw3 ]; then
    release=21.02.7
    cp /usr/sbin/xtables-legacy-multi /usr/sbin/ipset /usr/sbin/conntrack "$R/usr/sbin"
    for t in iptables ip6tables; do for a in "" -restore -save; do ln -s xtables-legacy-multi "$R/usr/sbin/$t$a"; done; done
    # Matches and targets are loaded by name.
    cp --parents "$(dirname "$(dpkg -L iptables | grep '/libxt_mark\.so$')")"/*.so -t "$R"
    mkdir -p "$R/run"
  else
    cp /usr/sbin/nft "$R/usr/sbin"
  fi
  local applets
  applets=$(busybox --list)
  for a in $(grep -v '^#' "$data/openwrt-busybox-applets.txt"); do
    if grep -qxF -- "$a" <<<"$applets"; then ln -s busybox "$R/bin/$a"; fi
  done
  ldd "$R"/bin/busybox "$R"/usr/sbin/* 2>/dev/null | grep -o '/[^ :]*\.so[^ :]*' | sort -u | xargs cp -L --parents -t "$R"
  if [ "$firewall" = fw3 ]; then
    install -m 755 /dev/stdin "$R/usr/sbin/fw3" <<<'#!/bin/ash'
    # A package that few have: tests put it back.
    mv "$R/usr/sbin/conntrack" "$R/usr/sbin/conntrack.package"
  fi
  # busybox's reboot would want to end the init of this machine.
  rm -f "$R/bin/reboot"
  install -D -m 755 "$here/root/uci" "$here/root/logread" "$here/root/ubus" "$here/root/wifi" "$here/root/reboot" -t "$R/usr/sbin"
  install -D -m 755 "$here/root/log" "$R/etc/init.d/log"
  for s in dnsmasq uhttpd; do install -D -m 755 "$here/root/service" "$R/etc/init.d/$s"; done
  install -D -m 644 "$here/root/wireless" "$here/root/system" -t "$R/etc/config"
  echo 'root:x:0:0:root:/root:/bin/ash' >"$R/etc/passwd"
  echo /bin/ash >"$R/etc/shells"
  echo "root:$(openssl passwd -6 secret):1:0:9:7:::" >"$R/etc/shadow"
  printf "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='%s'\nDISTRIB_TARGET='x86/64'\n" $release >"$R/etc/openwrt_release"
  ssh-keygen -qt ed25519 -N '' -C test -f "$dir/id"
  cp "$dir/id.pub" "$R/etc/dropbear/authorized_keys"
  chmod 600 "$R/etc/dropbear/authorized_keys"
  ln -s /etc/dropbear "$R/root/.ssh" # Debian's dropbear reads only ~/.ssh
  chmod 700 "$R/etc/dropbear" "$R/root"
  for d in null:1:3 urandom:1:9 tty:5:0 ptmx:5:2; do
    IFS=: read -r n a b <<<"$d"
    mknod -m 666 "$R/dev/$n" c "$a" "$b"
  done
}

# Dropbear until it ends; after a `reboot` on the router, again.
alive() {
  while :; do
    in_rt unshare -mpf --kill-child sh -c "mount -t proc p '$R/proc'; mount -t devpts p '$R/dev/pts'
      mount --bind '$dir/boot_id' '$R/proc/sys/kernel/random/boot_id'
      chroot '$R' sh -c 'wifi up; for s in dnsmasq uhttpd; do /etc/init.d/\$s restart; done'
      exec chroot '$R' dropbear -F -R -p 22" || true
    [ -e "$R/tmp/reboot" ] || return
    rm -rf "${R:?}/tmp/"*
    afresh
    cat /proc/sys/kernel/random/uuid >"$dir/boot_id"
    sleep 2
  done
}

# The log daemon, then dropbear as the first process of its own pid and mount namespaces, so that nothing outlives it.
boot() {
  cat /proc/sys/kernel/random/uuid >"$dir/boot_id"
  in_rt python3 "$here/logd.py" "$R/dev/log" "$log_to" "$log_name" >"$dir/logd.log" 2>&1 &
  echo $! >"$dir/logd.pid"
  for _ in $(seq 50); do [ -S "$R/dev/log" ] && break; sleep 0.1; done
  alive >"$dir/dropbear.log" 2>&1 &
  echo $! >"$dir/dropbear.pid"
  for _ in $(seq 100); do
    ip netns exec "${p}mg" bash -c 'echo >/dev/tcp/192.168.1.1/22' 2>/dev/null && return 0
    sleep 0.1
  done
  echo "device.sh: dropbear did not come up, see $dir/dropbear.log and $dir/logd.log" >&2
  return 1
}

up() {
  down
  rm -rf "$dir"
  mkdir -p "$dir"
  trap 'down' ERR
  network
  afresh
  files
  boot
  trap - ERR
}

case "$1" in
  up) up ;;
  down) down ;;
  fw4-reload) fw4 ;;
  fw4-stop) in_rt nft flush ruleset ;;
  fw3-reload) fw3 ;;
  fw3-stop) fw3_flush ;;
  fw3-flush) for t in iptables ip6tables; do for c in INPUT FORWARD; do in_rt $t-legacy -w -t mangle -F $c; done; done ;;
  flush-ours) in_rt nft delete table inet opmas ;;
  reboot) halt; rm -rf "${R:?}/tmp/"*; afresh; boot ;;
  cut) ip -n "${p}rt" link set lmg down ;;
  join) ip -n "${p}rt" link set lmg up ;;
  *) sed -n 2,9p "$0" >&2; exit 2 ;;
esac
