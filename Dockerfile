# The image of Ambit, for people who have Docker: `docker buildx build --platform linux/amd64,linux/arm64 -t HUB/ambit:TAG .`
# Without Docker: `just images`. Both have the same contents, but for the bill of materials.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# Static: the program is also the CNI plugin, which runs on nodes with whatever libraries. The target is named so that the flags are not
# those of macros and build scripts, which cannot be static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    target="$(uname -m)-unknown-linux-gnu" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile dist --package ambit --bin ambit --target "$target" \
    && install -D -m 755 "target/$target/dist/ambit" /image/usr/local/bin/ambit \
    && install -D -m 644 -t /image/usr/share/doc/ambit LICENSE NOTICE \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -d -m 1777 /image/tmp

FROM scratch
COPY --from=build /image/ /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Charts name others where they are needed: node agents and ztunnels are root, with few capabilities.
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/ambit"]
LABEL org.opencontainers.image.title="Ambit" org.opencontainers.image.description="An ambient service mesh" \
    org.opencontainers.image.licenses="Apache-2.0"
