// Handles events by asking for them.
//
// node subscribe.mjs HOST:PORT ROUTE                          on this machine
// node subscribe.mjs HOST:PORT ROUTE --ca PEM --token FILE    from elsewhere

import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { Subscriptions, credentials, options } from "./contract.mjs";
import { Never, handle } from "./handler.mjs";

// These do not become right by asking again.
const REFUSALS = ["INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"];

const text = { type: "string" };
const { values, positionals } = parseArgs({ allowPositionals: true, options: { ca: text, token: text } });
// A token needs TLS: without it anybody could read it.
if (positionals.length !== 2 || (values.token && !values.ca)) {
  console.error("usage: node subscribe.mjs HOST:PORT ROUTE [--ca PEM [--token FILE]]");
  process.exit(2);
}
const [address, route] = positionals;

async function outcome({ event, delivery }) {
  try {
    await handle(event, delivery);
    return { done: { status: 200 } };
  } catch (error) {
    if (error instanceof Never) return { permanent: { detail: error.message } };
    return { transient: { detail: error.name } };
  }
}

function subscribe() {
  const client = new Subscriptions(address, credentials(values), options);
  const stream = client.subscribe();
  stream.on("data", async ({ delivered }) => {
    if (delivered) stream.write({ settle: { number: delivered.number, ...(await outcome(delivered)) } });
  });
  stream.on("error", () => {}); // Its status, which comes for every end, says the same.
  stream.on("status", ({ code, details }) => {
    const words = `${grpc.status[code]}: ${details}`;
    if (REFUSALS.includes(grpc.status[code])) {
      console.error(`refused by ${address}: ${words}`);
      process.exit(1);
    }
    // What was not settled comes again.
    console.log(`asking again: ${words}`);
    client.close();
    setTimeout(subscribe, 1000);
  });
  // As many as may be in hand here at once; each settled one makes room.
  stream.write({ start: { route, subscriber: "node", credits: 16 } });
}

subscribe();
