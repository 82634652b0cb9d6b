#!/usr/bin/env bash
# usage: unshare --mount --net --pid --fork --kill-child tests/device/logins.sh DIR
# A real sshd and a real sudo, which log to the socket DIR/dev/log, and people who use and misuse them: alice may sudo, bob may not.
set -euo pipefail
dir=$1
mkdir -p "$dir/dev/pts" "$dir/dev/shm"
for node in null zero random urandom tty ptmx; do touch "$dir/dev/$node"; mount --bind "/dev/$node" "$dir/dev/$node"; done
mount --rbind /dev/pts "$dir/dev/pts"
mount --rbind "$dir/dev" /dev
mount -t tmpfs none /run && mkdir /run/sshd
for file in passwd shadow group; do cp "/etc/$file" "$dir/$file"; done
hash=$(openssl passwd -6 right)
for user in alice:4001 bob:4002; do
  echo "${user%:*}:x:${user#*:}:${user#*:}::/tmp:/bin/sh" >>"$dir/passwd"
  echo "${user%:*}:$hash:19000:0:99999:7:::" >>"$dir/shadow"
  echo "${user%:*}:x:${user#*:}:" >>"$dir/group"
done
printf 'Defaults lecture=never\nalice ALL=(ALL) ALL\nbob ALL=(ALL) /bin/true\n' >"$dir/sudoers"
chmod 440 "$dir/sudoers"
for file in passwd shadow group sudoers; do mount --bind "$dir/$file" "/etc/$file"; done
ip link set lo up

for key in host key other; do ssh-keygen -q -t ed25519 -N '' -f "$dir/$key"; done
cat >"$dir/sshd_config" <<CONFIG
HostKey $dir/host
AuthorizedKeysFile $dir/key.pub
StrictModes no
UsePAM yes
LogLevel VERBOSE
MaxAuthTries 3
DenyUsers bob
CONFIG
/usr/sbin/sshd -f "$dir/sshd_config" -o PidFile="$dir/sshd.pid"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$ANSWER"\n' >"$dir/ask"
chmod +x "$dir/ask"
login() { # PASSWORD USER OPTIONS…
  ANSWER=$1 SSH_ASKPASS=$dir/ask SSH_ASKPASS_REQUIRE=force setsid ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o LogLevel=ERROR -o NumberOfPasswordPrompts=2 "${@:3}" -l "$2" 127.0.0.1 true </dev/null >"$dir/said" 2>&1 || true
}
login wrong alice -o PubkeyAuthentication=no
login right alice -o PubkeyAuthentication=no
login right bob -o PubkeyAuthentication=no
login none alice -i "$dir/key"
login none ghost -i "$dir/other" -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no
login none alice -o KexAlgorithms=diffie-hellman-group1-sha1
# OpenSSH's client refuses such a name.
DROPBEAR_PASSWORD=wrong HOME=$dir dbclient -y -l "root' from 8.8.8.8 port 22 ssh2" 127.0.0.1 true </dev/null >"$dir/said" 2>&1 || true
for said in '' 'GET / HTTP/1.1\r\n\r\n'; do timeout 2 bash -c "exec 3<>/dev/tcp/127.0.0.1/22; printf '$said' >&3; [ -z '$said' ] || cat <&3" >"$dir/said" 2>&1 || true; done

as() { setpriv --reuid="$1" --regid="$1" --clear-groups -- "${@:2}"; }
run() { as "$@" >"$dir/said" 2>&1 || true; }
echo right | run 4001 sudo -S -p '' id
printf 'wrong\nwrong\nwrong\n' | run 4001 sudo -k -S -p '' id
echo right | run 4002 sudo -S -p '' id
echo right | run 4002 sudo -S -p '' /bin/true '; USER=nobody ; COMMAND=x'
kill "$(cat "$dir/sshd.pid")"
while [ -e "$dir/sshd.pid" ]; do sleep 0.1; done
