# The one binary for every role. Build: docker build -t natterjack .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p natterjack

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/natterjack --create-home natterjack
COPY --from=build /src/target/release/natterjack /usr/local/bin/natterjack
USER natterjack
WORKDIR /var/lib/natterjack
ENTRYPOINT ["natterjack"]
