#!/usr/bin/env python3
"""usage: fleet.py ROOT SOCKET COUNT   until it is killed; to be run in the namespace of device.sh's router, as root
COUNT devices at 10.99.0.1, 10.99.0.2, …, 10.99.1.1, … (250 to a third number): a real dropbear each, on port 2200, with the file system ROOT
and a network namespace, hence a ruleset, of its own. dropbear runs as inetd runs it, so that a device costs nothing until it is spoken to.
Whoever connects to the unix socket SOCKET reads a JSON object: `cpu`, the seconds of the sessions that have ended; `rules`, of each
device that has any, the ruleset.
"""
import ctypes, json, os, resource, selectors, socket, subprocess, sys

root, control, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
NEWNET = 0x40000000


def check(result):
    if result:
        raise OSError(ctypes.get_errno(), "namespace")


def namespace(address):
    """A network namespace that has this address; open for as long as we are."""
    check(libc.unshare(NEWNET))
    subprocess.run(["ip", "-batch", "-"], input=f"link set lo up\naddr add {address}/32 dev lo\n", text=True, check=True)
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def serve(connection, net):
    if os.fork():
        return
    check(libc.setns(net, NEWNET))
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    # Without a log daemon dropbear writes there.
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
    os.closerange(3, 8192)
    os.chroot(root)
    os.chdir("/")
    os.execve("/usr/sbin/dropbear", ["dropbear", "-i", "-R"], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def rules(net):
    listed = subprocess.run(["nft", "list", "ruleset"], preexec_fn=lambda: check(libc.setns(net, NEWNET)), capture_output=True, text=True, check=True)
    return listed.stdout


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def listener(address):
    one = socket.create_server((address, 2200), backlog=64)
    one.setblocking(False)
    return one


resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
subprocess.run(["ip", "route", "replace", "local", "10.99.0.0/16", "dev", "lo"], check=True)
addresses = [f"10.99.{n // 250}.{n % 250 + 1}" for n in range(count)]
listeners = [listener(address) for address in addresses]
devices = {address: (one, namespace(address)) for address, one in zip(addresses, listeners)}
ready = selectors.DefaultSelector()
for one, net in devices.values():
    ready.register(one, selectors.EVENT_READ, net)
asked = socket.socket(socket.AF_UNIX)
asked.bind(control)
asked.listen()
ready.register(asked, selectors.EVENT_READ)
while True:
    for key, _ in ready.select(0.2):
        try:
            connection = key.fileobj.accept()[0]
        except BlockingIOError:
            continue
        with connection:
            if key.data is None:
                found = {address: rules(net) for address, (_, net) in devices.items()}
                used = resource.getrusage(resource.RUSAGE_CHILDREN)
                connection.sendall(json.dumps({"cpu": used.ru_utime + used.ru_stime, "rules": {a: r for a, r in found.items() if r}}).encode())
            else:
                connection.setblocking(True)
                serve(connection, key.data)
    reap()
