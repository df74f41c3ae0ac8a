"""Handles events by being called.

python3 dispatch.py PORT                                              on this machine
python3 dispatch.py PORT --certificate PEM --key PEM --token FILE     from others
"""

import argparse
import hmac
import pathlib
import sys
from concurrent import futures

import grpc

from fluent_webhooks import OPTIONS, dispatcher, dispatcher_services
from handler import Never, handle

parser = argparse.ArgumentParser(description="Handles events by being called.")
parser.add_argument("port", type=int)
parser.add_argument("--certificate", type=pathlib.Path, help="of this server, PEM")
parser.add_argument("--key", type=pathlib.Path, help="its private key, PEM")
parser.add_argument("--token", type=pathlib.Path, help="what callers have to show, a file")
args = parser.parse_args()
if bool(args.certificate) != bool(args.key):
    parser.error("expected --certificate and --key together")
expected = f"Bearer {args.token.read_text().strip()}" if args.token else None


class Dispatcher(dispatcher_services.DispatcherServicer):
    def Dispatch(self, request, context):
        shown = str(dict(context.invocation_metadata()).get("authorization", ""))
        if expected and not hmac.compare_digest(shown.encode(), expected.encode()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "expected the token of this handler")
        try:
            handle(request.event, request.delivery)
        except Never as never:
            # A dead letter, for a person to look at.
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(never))
        except Exception as not_now:
            # It comes again, later. Put no data of the event into the words.
            context.abort(grpc.StatusCode.UNAVAILABLE, type(not_now).__name__)
        return dispatcher.DispatchResponse(status=200)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=OPTIONS)
dispatcher_services.add_DispatcherServicer_to_server(Dispatcher(), server)
try:
    if args.certificate:
        pair = (args.key.read_bytes(), args.certificate.read_bytes())
        port = server.add_secure_port(f"[::]:{args.port}", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(f"127.0.0.1:{args.port}")
except RuntimeError as refused:
    sys.exit(f"can't listen: {refused}")
server.start()
print(f"listening on {port}", flush=True)
try:
    server.wait_for_termination()
except KeyboardInterrupt:
    server.stop(grace=10).wait()
