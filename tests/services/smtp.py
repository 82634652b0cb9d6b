"""An SMTP server for tests: keeps each accepted mail as DIR/<n>.json, and can be told to misbehave.

Prints `ready PORT` when it listens on 127.0.0.1, and ends when its standard input does.
"""

import argparse
import asyncio
import json
import logging
import ssl
import sys
import warnings
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult


class Keeper:
    """Writes what it accepts; answers as it was told."""

    def __init__(self, options):
        self.options = options
        self.count = 0

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        answer = self.options.rcpt.get(address, self.options.rcpt.get("*"))
        if answer:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.options.data:
            return self.options.data
        self.keep(session, envelope)
        if self.options.after == "close":
            server.transport.abort()
        if self.options.after == "silence":
            await asyncio.sleep(3600)
        return "250 2.0.0 kept as number %d" % self.count

    def keep(self, session, envelope):
        self.count += 1
        kept = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "content": envelope.content.decode("latin-1"),
            "tls": session.ssl is not None or self.options.implicit,
            "user": session.auth_data.login.decode() if session.auth_data else None,
        }
        path = Path(self.options.dir, "%d.json" % self.count)
        path.with_suffix(".part").write_text(json.dumps(kept))
        path.with_suffix(".part").rename(path)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert", help="chain in PEM; with --key: STARTTLS is offered")
    parser.add_argument("--key")
    parser.add_argument("--implicit", action="store_true", help="TLS from the first byte")
    parser.add_argument("--user", help="NAME:PASSWORD that must log in")
    parser.add_argument("--data", help="the answer to every message")
    parser.add_argument("--after", choices=["close", "silence"], help="what follows a kept message instead of an answer")
    parser.add_argument("--rcpt", action="append", default=[], help="ADDRESS=ANSWER, * for all")
    options = parser.parse_args()
    options.rcpt = dict(pair.split("=", 1) for pair in options.rcpt)
    return options


def server(options, handler, context):
    settings = {"hostname": "test", "enable_SMTPUTF8": False, "ident": "test"}
    if context and not options.implicit:
        settings.update(tls_context=context, require_starttls=True)
    if options.user:
        name, password = options.user.split(":", 1)

        def authenticate(server, session, envelope, mechanism, data):
            good = (data.login, data.password) == (name.encode(), password.encode())
            # The answer repeats what was sent, as careless servers do.
            message = None if good else "535 5.7.8 no such user with password %s" % data.password.decode()
            return AuthResult(success=good, handled=False, message=message, auth_data=data)

        settings.update(authenticator=authenticate, auth_required=True, auth_require_tls=context is not None and not options.implicit)
    return SMTP(handler, **settings)


async def main():
    options = arguments()
    # Handshakes that fail are what some tests want.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    context = None
    if options.cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.cert, options.key)
    handler = Keeper(options)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: server(options, handler, context), "127.0.0.1", options.port, ssl=context if options.implicit else None
    )
    print("ready", listening.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
