"""What is done with an event: the part to change. `dispatch.py` and `subscribe.py` call it."""

import json


class Never(Exception):
    """It will never work, however often it is tried: the event becomes a dead letter."""


handled = set()  # In earnest: a table, written together with the effect.


def handle(event, delivery):
    """Does the work. Whatever it raises but `Never` means: again, later."""
    body = json.loads(event.body)
    if delivery.idempotency_key in handled:
        return  # It came twice: one effect is enough.
    if not event.entity.ref:
        raise Never("an event without an entityRef means nothing here")
    print(f"handled {event.name} {event.entity.ref}, {len(body)} fields", flush=True)
    handled.add(delivery.idempotency_key)
