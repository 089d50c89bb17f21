# The server's image: fisherd and fisherctl on Debian, as a user of their own, without a compiler.
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY dev ./
RUN ./dev setup
COPY . .
RUN cmake --preset release -DFISHERD_BUILD_TESTS=OFF && \
    cmake --build --preset release --target fisherd fisherctl && \
    mkdir -p /image/bin && \
    install --strip --target-directory /image/bin build/release/server/fisherd build/release/client/fisherctl

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="fisherd" \
      org.opencontainers.image.description="The curvature server" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update && \
    apt-get install -y --no-install-recommends libcivetweb1 libgrpc++1.51 libhwy1 libisal2 libjemalloc2 libprometheus-cpp-core1.0 libprotobuf32 librocksdb7.8 libxxhash0 libyaml-cpp0.7 && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log && \
    install -d -m 700 -o 65532 -g 65532 /var/lib/fisherd && \
    useradd --system --uid 65532 -K SYS_UID_MAX=65532 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin fisherd
COPY LICENSE /usr/share/doc/fisherd/copyright
COPY --from=build /image/bin/ /usr/local/bin/
USER 65532:65532
VOLUME /var/lib/fisherd
EXPOSE 7600 7601
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["fisherctl", "health"]
# A container is reached through what its owner publishes: give it TLS (docs/security.md) or keep it on a network of its own.
ENV FISHERD_LISTEN=0.0.0.0:7600 FISHERD_HTTP=0.0.0.0:7601 FISHERD_INSECURE=true
ENTRYPOINT ["fisherd"]
