// Handles events by being called.
//
// node dispatch.mjs PORT                                            on this machine
// node dispatch.mjs PORT --certificate PEM --key PEM --token FILE   from others

import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { Dispatcher, options } from "./contract.mjs";
import { Never, handle } from "./handler.mjs";

const text = { type: "string" };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { certificate: text, key: text, token: text },
});
if (positionals.length !== 1 || !values.certificate !== !values.key) {
  console.error("usage: node dispatch.mjs PORT [--certificate PEM --key PEM] [--token FILE]");
  process.exit(2);
}
const expected = values.token && `Bearer ${readFileSync(values.token, "utf8").trim()}`;

// Compares in a time that tells nothing of where they differ.
function isEqual(one, other) {
  const digest = (text) => createHash("sha256").update(String(text)).digest();
  return timingSafeEqual(digest(one), digest(other));
}

async function dispatch({ request: { event, delivery }, metadata }, answer) {
  if (expected && !isEqual(metadata.get("authorization")[0], expected)) {
    const details = "expected the token of this handler";
    return answer({ code: grpc.status.UNAUTHENTICATED, details });
  }
  try {
    await handle(event, delivery);
    answer(null, { status: 200 });
  } catch (error) {
    // A dead letter, or again later. Put no data of the event into the words.
    const code = error instanceof Never ? grpc.status.INVALID_ARGUMENT : grpc.status.UNAVAILABLE;
    answer({ code, details: error instanceof Never ? error.message : error.name });
  }
}

function listening() {
  if (!values.certificate) {
    return [`127.0.0.1:${positionals[0]}`, grpc.ServerCredentials.createInsecure()];
  }
  const pair = { cert_chain: readFileSync(values.certificate), private_key: readFileSync(values.key) };
  return [`[::]:${positionals[0]}`, grpc.ServerCredentials.createSsl(null, [pair])];
}

const server = new grpc.Server(options);
server.addService(Dispatcher.service, { dispatch });
server.bindAsync(...listening(), (error, port) => {
  if (error) {
    console.error(`can't listen: ${error.message}`);
    process.exit(1);
  }
  console.log(`listening on ${port}`);
});
process.on("SIGINT", () => server.tryShutdown(() => process.exit(0)));
