"""Handles events by being called. Run: python3 dispatch.py PORT"""

import json
import pathlib
import sys
from concurrent import futures

import grpc

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
messages, services = grpc.protos_and_services("fluent/webhooks/v1/dispatcher.proto")

handled = set()  # In earnest: a table, written together with the effect.


def handle(event, delivery):
    """Does the work. What it raises is tried again, but for a ValueError."""
    body = json.loads(event.body)
    if delivery.idempotency_key in handled:
        return  # It came twice: one effect is enough.
    if not event.entity.ref:
        raise ValueError("an event without an entityRef means nothing here")
    print(f"handled {event.name} {event.entity.ref}, {len(body)} fields", flush=True)
    handled.add(delivery.idempotency_key)


class Dispatcher(services.DispatcherServicer):
    def Dispatch(self, request, context):
        try:
            handle(request.event, request.delivery)
        except ValueError as never:
            # It will never work: a dead letter, for a person to look at.
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(never))
        except Exception as not_now:
            # It comes again, later. Put no data of the event into the words.
            context.abort(grpc.StatusCode.UNAVAILABLE, type(not_now).__name__)
        return messages.DispatchResponse(status=200)


server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=16),
    options=[("grpc.max_receive_message_length", 17 << 20)],
)
services.add_DispatcherServicer_to_server(Dispatcher(), server)
# Beyond this machine: add_secure_port, and look at the `authorization` of a call.
port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
print(f"listening on {port}", flush=True)
server.wait_for_termination()
