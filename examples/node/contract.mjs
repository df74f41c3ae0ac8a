// The contract of fluent-webhooks: messages and services, read from the `proto` folder here.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

// Events have bodies of up to 16 MiB.
export const options = { "grpc.max_receive_message_length": 17 << 20 };

const includeDirs = [fileURLToPath(new URL("proto", import.meta.url))];
const files = ["dispatcher", "subscriptions", "operator"];
const contract = loader.loadSync(
  files.map((name) => `fluent/webhooks/v1/${name}.proto`),
  { includeDirs },
);
export const { Dispatcher, Subscriptions, Operator } =
  grpc.loadPackageDefinition(contract).fluent.webhooks.v1;

// Credentials for a server: with TLS if `ca` (a file, PEM) is given, and a token from a file.
export function credentials({ ca, token }) {
  if (!ca) return grpc.credentials.createInsecure();
  const tls = grpc.credentials.createSsl(readFileSync(ca));
  if (!token) return tls;
  const bearer = `Bearer ${readFileSync(token, "utf8").trim()}`;
  const show = grpc.credentials.createFromMetadataGenerator((_, answer) => {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", bearer);
    answer(null, metadata);
  });
  return grpc.credentials.combineChannelCredentials(tls, show);
}
