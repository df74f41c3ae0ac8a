"""The contract of fluent-webhooks: messages and services, made from the `proto` folder here."""

import pathlib
import sys

import grpc

# Events have bodies of up to 16 MiB.
OPTIONS = [("grpc.max_receive_message_length", 17 << 20)]

sys.path.append(str(pathlib.Path(__file__).parent / "proto"))
_V1 = "fluent/webhooks/v1/"
dispatcher, dispatcher_services = grpc.protos_and_services(_V1 + "dispatcher.proto")
subscriptions, subscriptions_services = grpc.protos_and_services(_V1 + "subscriptions.proto")
operator, operator_services = grpc.protos_and_services(_V1 + "operator.proto")


def connect(address, ca=None, token=None):
    """A channel to a server: with TLS if `ca` (a file, PEM) is given, and a token from a file."""
    if ca is None:
        return grpc.insecure_channel(address, OPTIONS)
    credentials = grpc.ssl_channel_credentials(pathlib.Path(ca).read_bytes())
    if token is not None:
        bearer = grpc.access_token_call_credentials(pathlib.Path(token).read_text().strip())
        credentials = grpc.composite_channel_credentials(credentials, bearer)
    return grpc.secure_channel(address, credentials, OPTIONS)
