# The image of every role: `docker run tickloom worker`, `... gateway`, `... export clickhouse`. It holds what serving
# needs: no TensorFlow, no embedded servers, no compiler, and no files that the running user may change.

ARG PYTHON=3.12-slim-trixie

FROM python:${PYTHON} AS build
# As in deploy/uv.py: the version that wrote uv.lock.
ARG UV_VERSION=0.13.9
RUN --mount=type=cache,target=/root/.cache/pip pip install --root-user-action=ignore uv==${UV_VERSION}
ENV UV_PROJECT_ENVIRONMENT=/opt/tickloom \
    UV_PYTHON=/usr/local/bin/python3 \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
WORKDIR /build
# The libraries first: a change of our own code leaves this layer as it is.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev --no-install-project
COPY README.md ./
COPY stream ./stream
COPY agents ./agents
COPY models ./models
COPY exporters ./exporters
COPY deploy/clickhouse/queries ./deploy/clickhouse/queries
# --reinstall-package: uv would take the wheel that it built of an earlier state of this code, of the same version.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-dev --no-editable --reinstall-package tickloom

FROM python:${PYTHON}
RUN groupadd --gid 10001 tickloom \
 && useradd --uid 10001 --gid tickloom --home-dir /var/lib/tickloom --shell /usr/sbin/nologin tickloom \
 && install --directory --owner tickloom --group tickloom /var/lib/tickloom /var/cache/tickloom /var/lib/tickloom-models
COPY --from=build /opt/tickloom /opt/tickloom
COPY --chmod=0755 deploy/docker/entrypoint.sh /usr/local/bin/tickloom-entrypoint
COPY --chmod=0755 deploy/docker/health.py /usr/local/bin/tickloom-health

# The kernels are compiled for the very processor that they run on, when a worker starts (8 s). NUMBA_CACHE_DIR is
# where they stay, if it is a volume.
ENV PATH=/opt/tickloom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/tickloom \
    TICKLOOM_DATA_DIR=/var/lib/tickloom \
    TICKLOOM_SOURCE_PORT=9100 \
    TICKLOOM_WORKER_PORT=9100 \
    TICKLOOM_EXPORTER_PORT=9100 \
    TICKLOOM_GATEWAY_PORT=8765 \
    TICKLOOM_API_PORT=8080
WORKDIR /var/lib/tickloom
USER 10001:10001
EXPOSE 8080 8765 8766/udp 9100
# 503 while a role cannot do its work; the answer says why, and `docker inspect` shows it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["tickloom-health", "9100"]
ENTRYPOINT ["tickloom-entrypoint"]
CMD ["--help"]
