# syntax=docker/dockerfile:1
# Process Sentinel in a container: built in one stage, run in another that has no compiler and needs no shell.
#
#   docker build -t process-sentinel .
#   docker build -t process-sentinel --build-arg INSTANT_CLIENT_URL=https://download.oracle.com/…/instantclient-basiclite-linux….zip .
#
# The second form bakes Oracle's Instant Client in, which is needed with an Oracle address only. Instant Client comes
# under Oracle's own licence (https://www.oracle.com/downloads/licenses/instant-client-lic.html), which an image that
# is passed on must keep to. It can be mounted at /opt/oracle/instantclient instead.
# INSTANT_CLIENT_SHA256 is the checksum that its publisher names: with it, another file ends the build.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
# The embedded store, the allocator and the Oracle driver are C.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The dependencies by themselves, with an empty program: this layer is made anew only when they change.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src benches tests/it && touch src/lib.rs \
    && for program in src/main benches/heap benches/log_batch benches/serve tests/it/main; do \
         echo 'fn main() {}' > "$program.rs"; done \
    && cargo build --release --locked --bin sentinel \
    && rm -rf src target/release/.fingerprint/process-sentinel-* target/release/deps/*sentinel*
COPY src src
COPY sql sql
RUN cargo build --release --locked --bin sentinel && cp target/release/sentinel /sentinel

FROM debian:${DEBIAN}-slim AS run
ARG INSTANT_CLIENT_URL=
ARG INSTANT_CLIENT_SHA256=
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 sentinel \
    && useradd --system --uid 10001 --gid sentinel --home-dir /var/lib/sentinel --no-create-home \
         --shell /usr/sbin/nologin sentinel \
    && install -d -o sentinel -g sentinel -m 0700 /var/lib/sentinel \
    && install -d /opt/oracle/instantclient /etc/sentinel
# What Instant Client needs beside itself stays; what fetched it goes.
# hadolint ignore=DL3008
RUN if [ -n "$INSTANT_CLIENT_URL" ]; then \
         apt-get update && apt-get install -y --no-install-recommends libaio1 unzip curl \
         && curl --fail --silent --show-error --location --output /tmp/client.zip "$INSTANT_CLIENT_URL" \
         && if [ -n "$INSTANT_CLIENT_SHA256" ]; then \
              echo "$INSTANT_CLIENT_SHA256  /tmp/client.zip" | sha256sum --check --strict; fi \
         && unzip -q /tmp/client.zip -d /tmp/client && mv /tmp/client/instantclient_*/* /opt/oracle/instantclient/ \
         && apt-get purge -y unzip curl && apt-get autoremove -y \
         && rm -rf /tmp/client /tmp/client.zip /var/lib/apt/lists/*; fi
COPY --from=build /sentinel /usr/local/bin/sentinel
# Where the Oracle driver looks for the client, and where a wallet is mounted (read-only).
ENV LD_LIBRARY_PATH=/opt/oracle/instantclient \
    SENTINEL_DATABASE=sqlite:///var/lib/sentinel
USER 10001:10001
WORKDIR /var/lib/sentinel
VOLUME ["/var/lib/sentinel"]
EXPOSE 8090 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/usr/local/bin/sentinel", "health"]
ENTRYPOINT ["/usr/local/bin/sentinel"]
CMD ["serve"]
