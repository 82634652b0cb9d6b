#!/usr/bin/env bash
# usage: tests/bench/replay.sh OPMAS [RUNS] [LOG RULES]…
# The rate of `opmas replay` over that of `opmas eval` on the same file, with the same rules and one thread, each net of start-up:
# the median of RUNS (5) pairs that are run one after the other. Without LOG and RULES: 200,000 lines of a router with an attack in
# every thousand, and the shipped rules. Ends with 1 when the ratio is below 0.8.
set -euo pipefail
opmas=$(realpath "$1") runs=${2:-5}
shift $(( $# < 2 ? $# : 2 ))
root=$(realpath "$(dirname "$0")/../..")
exec python3 - "$opmas" "$runs" "$root" "$@" <<'P'
import os, statistics, subprocess, sys, tempfile, time

opmas, runs, root, given = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]

def router(path):
    with open(path, "w") as out:
        for n in range(200_000):
            day, place = n // 1000, n % 1000
            at = time.strftime("%b %d %H:%M:%S", time.gmtime(1_790_000_000 + n))
            address = f"203.0.{day // 250}.{day % 250}"
            if place in range(10, 16): text = f"dropbear[{n}]: Bad password attempt for 'root' from {address}:{40000 + place}"
            elif place == 20: text = f"dropbear[{n}]: Password auth succeeded for 'root' from {address}:40020"
            elif place % 3 == 0: text = f"dnsmasq-dhcp[{n}]: DHCPACK(br-lan) 192.168.1.{n % 250} 02:00:00:00:{place % 256:02x}:{day % 256:02x} host{n}"
            elif place % 3 == 1: text = f"hostapd: phy0-ap0: STA 02:00:00:00:{place % 256:02x}:{day % 256:02x} IEEE 802.11: associated (aid 1)"
            else: text = f"netifd: Interface 'wan{n % 7}' is now up"
            out.write(f"{at} ap1 {text}\n")

def timed(argv, stdin):
    with open(stdin) as lines:
        begun = time.perf_counter()
        out = subprocess.run(argv, stdin=lines, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, cwd=site).stdout
        return time.perf_counter() - begun, out.count(b"\n")

with tempfile.TemporaryDirectory() as dir:
    pairs = list(zip(given[::2], given[1::2]))
    if not pairs:
        router(f"{dir}/router.log")
        pairs = [(f"{dir}/router.log", f"{root}/rules")]
    worst = 9e9
    for log, rules in pairs:
        log, rules = os.path.realpath(log), os.path.realpath(rules)
        site = tempfile.mkdtemp(dir=dir)
        os.symlink(rules, f"{site}/rules")
        open(f"{site}/opmas.toml", "w").close()
        with open(f"{site}/devices.toml", "w") as devices: devices.write('[[device]]\nname = "ap1"\nhost = "192.0.2.1"\n')
        evaluate = [opmas, "eval", "--rules", rules, "--now", "2026-11-21"]
        replay = [opmas, "replay", "-", "--now", "2026-11-21"]
        start = [statistics.median(timed(argv, os.devnull)[0] for _ in range(3)) for argv in (evaluate, replay)]
        count = sum(1 for _ in open(log, "rb"))
        ratios = []
        for _ in range(runs):
            (a, said), (b, told) = timed(evaluate, log), timed(replay, log)
            ratios.append((a - start[0]) / (b - start[1]))
        ratio = statistics.median(ratios)
        print(f"{os.path.basename(log):14} {count} lines, {said} matches, {told} told; replay / eval {ratio:.2f} (of {min(ratios):.2f} to {max(ratios):.2f}), last eval {count / (a - start[0]):,.0f} lines/s")
        worst = min(worst, ratio)
sys.exit(worst < 0.8)
P
