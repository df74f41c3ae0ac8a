"""A mail server for tests: aiosmtpd, told by addresses what to answer.

server.py FOLDER [CERTIFICATE KEY]: prints its port, keeps mails in FOLDER, and
ends with its standard input.
"""

import pathlib
import socket
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

folder = pathlib.Path(sys.argv[1])


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 no such customer: " + address
        if address.startswith("later"):
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        number = len(list(folder.glob("*.eml")))
        (folder / f"{number}.eml").write_bytes(envelope.content)
        return "250 OK"


def known(server, session, envelope, mechanism, data):
    is_known = (data.login, data.password) == (b"shop", b"s3cret")
    # Not handled: the server answers, with 535 where it is not known.
    return AuthResult(success=is_known, handled=False)


more = {}
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    more = dict(tls_context=context, require_starttls=True, auth_required=True, authenticator=known)
with socket.socket() as held:
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]
controller = Controller(Handler(), hostname="127.0.0.1", port=port, ready_timeout=30, **more)
controller.start()
print(port, flush=True)
sys.stdin.read()
controller.stop(no_assert=True)
