# One image a stage, from one file:
#   docker build --build-arg PROGRAM=fluent-gateway    --tag fluent-webhooks/gateway:0.1.0    .
#   docker build --build-arg PROGRAM=fluent-dispatcher --tag fluent-webhooks/dispatcher:0.1.0 .
#   docker build --build-arg PROGRAM=fluent-webhooks   --tag fluent-webhooks/webhooks:0.1.0   .
# `cargo xtask dist` makes the same images from binaries that it builds outside
# (--target prebuilt, with the folder of binaries as context).

# Exact versions; a digest goes behind them (`debian:12.12-slim@sha256:...`) where it is known:
# docs/how-to/renew-images.md
ARG DEBIAN=debian:12.12-slim
ARG RUST=rust:1.95.0-bookworm

FROM ${DEBIAN} AS base
RUN groupadd --gid 10001 fluent \
 && useradd --uid 10001 --gid fluent --no-create-home --shell /usr/sbin/nologin fluent \
 && mkdir /data && chown fluent:fluent /data
USER 10001:10001
WORKDIR /etc/fluent-webhooks
VOLUME /data

# With a binary that was built outside, and the public authorities of that machine: they vouch
# for an endpoint, a mail server and Fluent. SSL_CERT_FILE names others.
FROM base AS prebuilt
ARG PROGRAM
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY ${PROGRAM} /usr/local/bin/fluent
ENTRYPOINT ["/usr/local/bin/fluent"]

FROM ${RUST} AS build
ARG PROGRAM
WORKDIR /src
COPY . .
# The program alone: what its neighbours in the workspace switch on for their tests stays out.
RUN cargo build --release --locked --package ${PROGRAM} --bin ${PROGRAM} && cp target/release/${PROGRAM} /fluent

FROM base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /fluent /usr/local/bin/fluent
ENTRYPOINT ["/usr/local/bin/fluent"]
