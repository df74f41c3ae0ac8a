"""Handles events by asking for them. Run: python3 subscribe.py HOST:PORT ROUTE"""

import json
import pathlib
import queue
import sys
import time

import grpc

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
messages, services = grpc.protos_and_services("fluent/webhooks/v1/subscriptions.proto")

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


def settled(delivered):
    settle = messages.SubscribeRequest.Settle(number=delivered.number)
    try:
        handle(delivered.event, delivered.delivery)
        settle.done.status = 200
    except ValueError as never:
        settle.permanent.detail = str(never)
    except Exception as not_now:
        settle.transient.detail = type(not_now).__name__
    return messages.SubscribeRequest(settle=settle)


def subscribe(address, route):
    asks = queue.Queue()
    # As many as may be in hand here at once; each settled one makes room.
    start = messages.SubscribeRequest.Start(route=route, subscriber="python", credits=16)
    asks.put(messages.SubscribeRequest(start=start))
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", 17 << 20)]) as channel:
        for response in services.SubscriptionsStub(channel).Subscribe(iter(asks.get, None)):
            if response.HasField("delivered"):
                asks.put(settled(response.delivered))


while True:
    try:
        subscribe(sys.argv[1], sys.argv[2])
    except grpc.RpcError as broken:
        # What was not settled comes again.
        print(f"asking again: {broken.code().name}", flush=True)
        time.sleep(1)
