// Handles events by being called. Run: node dispatch.mjs PORT

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const proto = new URL("../../proto", import.meta.url).pathname;
const contract = loader.loadSync("fluent/webhooks/v1/dispatcher.proto", { includeDirs: [proto] });
const { Dispatcher } = grpc.loadPackageDefinition(contract).fluent.webhooks.v1;

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

async function dispatch({ request: { event, delivery } }, answer) {
  try {
    await handle(event, delivery);
    answer(null, { status: 200 });
  } catch (error) {
    // A dead letter, or again later. Put no data of the event into the words.
    const code = error instanceof Never ? grpc.status.INVALID_ARGUMENT : grpc.status.UNAVAILABLE;
    answer({ code, details: error instanceof Never ? error.message : error.name });
  }
}

const server = new grpc.Server({ "grpc.max_receive_message_length": 17 << 20 });
server.addService(Dispatcher.service, { dispatch });
// Beyond this machine: createSsl, and look at the `authorization` of a call.
const insecure = grpc.ServerCredentials.createInsecure();
server.bindAsync(`127.0.0.1:${process.argv[2]}`, insecure, (error, port) => {
  if (error) throw error;
  console.log(`listening on ${port}`);
});
