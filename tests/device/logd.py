#!/usr/bin/env python3
"""Stands in for OpenWrt's logd with `logread -r HOST PORT [-u] [-0] -h NAME`.

usage: logd.py SOCKET udp|tcp|tcp0:ADDRESS:PORT NAME

Takes what syslog(3) writes to the datagram socket and forwards each message as the real one does (the frames are in
../data/openwrt-remote-syslog.txt): `<PRI>Mmm dd hh:mm:ss NAME rest`, local time, one UDP datagram each, or over TCP
with a newline (tcp) or NUL (tcp0) after each. Over TCP it connects again when the other side went away; what cannot be
sent is lost, as there.
"""
import os
import re
import socket
import sys
import time

STAMPED = re.compile(rb"<(\d{1,3})>(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d )?", re.S)


def frame(line: bytes, name: bytes) -> bytes:
    """`<PRI>stamp rest` with the host name put in; the stamp is the time of arrival, as logd has it."""
    head = STAMPED.match(line)
    priority, rest = (head.group(1), line[head.end():]) if head else (b"13", line)
    stamp = time.strftime("%b %e %H:%M:%S").encode()
    return b"<" + priority + b">" + stamp + b" " + name + b" " + rest.rstrip(b"\r\n\0").replace(b"\n", b" ")


class Remote:
    """The log server."""

    def __init__(self, kind: str, address: str, port: int, name: bytes):
        self.kind, self.to, self.name, self.tcp = kind, (address, port), name, None
        self.trailer = b"\0" if kind == "tcp0" else b"\n"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.udp = socket.socket(family, socket.SOCK_DGRAM) if kind == "udp" else None

    def send(self, data: bytes) -> None:
        try:
            if self.udp:
                self.udp.sendto(data, self.to)
            else:
                self.connect()
                self.tcp.sendall(data + self.trailer)
        except OSError:
            self.tcp = None

    def connect(self) -> None:
        if self.tcp is None:
            self.tcp = socket.create_connection(self.to, timeout=2)
            text = f"<30>logread[{os.getpid()}]: Logread connected to {self.to[0]}:{self.to[1]} via tcp"
            self.tcp.sendall(frame(text.encode(), self.name) + self.trailer)


def main() -> None:
    path, target, name = sys.argv[1:]
    kind, rest = target.split(":", 1)
    address, port = rest.rsplit(":", 1)
    remote = Remote(kind, address.strip("[]"), int(port), name.encode())
    # A socket's path has at most 107 bytes, a test's folder may be deeper.
    os.chdir(os.path.dirname(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(os.path.basename(path))
    os.chmod(os.path.basename(path), 0o666)
    while True:
        line = frame(listener.recv(65536), name.encode())
        # What `logread` prints on the router.
        with open("../tmp/log", "ab") as log:
            log.write(line + b"\n")
        remote.send(line)


main()
