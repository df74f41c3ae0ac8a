// What is done with an event: the part to change. `dispatch.mjs` and `subscribe.mjs` call it.

// It will never work, however often it is tried: the event becomes a dead letter.
export class Never extends Error {}

const handled = new Set(); // In earnest: a table, written together with the effect.

// Does the work. Whatever it throws but `Never` means: again, later.
export async function handle(event, delivery) {
  const body = JSON.parse(event.body);
  if (handled.has(delivery.idempotencyKey)) return; // It came twice: one effect is enough.
  if (!event.entity?.ref) throw new Never("an event without an entityRef means nothing here");
  console.log(`handled ${event.name} ${event.entity.ref}, ${Object.keys(body).length} fields`);
  handled.add(delivery.idempotencyKey);
}
