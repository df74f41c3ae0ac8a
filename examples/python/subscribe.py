"""Handles events by asking for them.

python3 subscribe.py HOST:PORT ROUTE                           on this machine
python3 subscribe.py HOST:PORT ROUTE --ca PEM --token FILE     from elsewhere
"""

import argparse
import queue
import sys
import time

import grpc

from fluent_webhooks import connect, subscriptions, subscriptions_services
from handler import Never, handle

# These do not become right by asking again.
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"}

parser = argparse.ArgumentParser(description="Handles events by asking for them.")
parser.add_argument("address", metavar="HOST:PORT")
parser.add_argument("route")
parser.add_argument("--ca", help="the authority of the server's certificate, PEM")
parser.add_argument("--token", help="a file with the token to show; needs --ca")
args = parser.parse_args()
if args.token and not args.ca:
    parser.error("--token needs --ca: without TLS anybody could read it")


def settled(delivered):
    settle = subscriptions.SubscribeRequest.Settle(number=delivered.number)
    try:
        handle(delivered.event, delivered.delivery)
        settle.done.status = 200
    except Never as never:
        settle.permanent.detail = str(never)
    except Exception as not_now:
        settle.transient.detail = type(not_now).__name__
    return subscriptions.SubscribeRequest(settle=settle)


def subscribe():
    asks = queue.Queue()
    # As many as may be in hand here at once; each settled one makes room.
    start = subscriptions.SubscribeRequest.Start(route=args.route, subscriber="python", credits=16)
    asks.put(subscriptions.SubscribeRequest(start=start))
    with connect(args.address, args.ca, args.token) as channel:
        stub = subscriptions_services.SubscriptionsStub(channel)
        for response in stub.Subscribe(iter(asks.get, None)):
            if response.HasField("delivered"):
                asks.put(settled(response.delivered))


try:
    while True:
        try:
            subscribe()
        except grpc.RpcError as broken:
            words = f"{broken.code().name}: {broken.details()}"
            if broken.code().name in REFUSALS:
                sys.exit(f"refused by {args.address}: {words}")
            # What was not settled comes again.
            print(f"asking again: {words}", flush=True)
        time.sleep(1)
except KeyboardInterrupt:
    pass
