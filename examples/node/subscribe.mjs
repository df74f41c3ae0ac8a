// Handles events by asking for them. Run: node subscribe.mjs HOST:PORT ROUTE

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const proto = new URL("../../proto", import.meta.url).pathname;
const contract = loader.loadSync("fluent/webhooks/v1/subscriptions.proto", { includeDirs: [proto] });
const { Subscriptions } = grpc.loadPackageDefinition(contract).fluent.webhooks.v1;

const handled = new Set(); // In earnest: a table, written together with the effect.

class Never extends Error {}

// Does the work. What it throws is tried again, but for a Never.
async function handle(event, delivery) {
  const body = JSON.parse(event.body);
  if (handled.has(delivery.idempotencyKey)) return; // It came twice: one effect is enough.
  if (!event.entity?.ref) throw new Never("an event without an entityRef means nothing here");
  console.log(`handled ${event.name} ${event.entity.ref}, ${Object.keys(body).length} fields`);
  handled.add(delivery.idempotencyKey);
}

async function outcome({ event, delivery }) {
  try {
    await handle(event, delivery);
    return { done: { status: 200 } };
  } catch (error) {
    if (error instanceof Never) return { permanent: { detail: error.message } };
    return { transient: { detail: error.name } };
  }
}

function subscribe(address, route) {
  const options = { "grpc.max_receive_message_length": 17 << 20 };
  const client = new Subscriptions(address, grpc.credentials.createInsecure(), options);
  const stream = client.subscribe();
  stream.on("data", async ({ delivered }) => {
    if (delivered) stream.write({ settle: { number: delivered.number, ...(await outcome(delivered)) } });
  });
  stream.on("error", (error) => {
    // What was not settled comes again.
    console.log(`asking again: ${grpc.status[error.code]}`);
    client.close();
    setTimeout(subscribe, 1000, address, route);
  });
  // As many as may be in hand here at once; each settled one makes room.
  stream.write({ start: { route, subscriber: "node", credits: 16 } });
}

subscribe(process.argv[2], process.argv[3]);
