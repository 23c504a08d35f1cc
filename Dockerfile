# The example agent under panelind, as Cloud Run runs it.
#
#   docker build -t agent .                     the agent, with panelind as PID 1
#   docker build -t panelind --target panelind .      panelind alone, for `COPY --from=panelind /panelind /usr/local/bin/`
#
# Base images are pinned by tag; docs/cloud-run.md says how to pin them by digest.

FROM swift:6.3-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Headers and a static library of a stable suite; a pinned version would vanish with its next point release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libsystemd-dev libyaml-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The dependencies in a layer of their own: a change of our sources does not fetch them again. With a Package.resolved in
# the context, exactly its versions; without, those of Package.swift.
COPY Package.* ./
RUN swift package resolve
COPY Sources Sources
# The manifest names the tests, so they must be there; none is built.
COPY Tests Tests
COPY scripts/build scripts/build
RUN scripts/build release panelind \
    && install -m 755 .build/release/panelind /panelind \
    && strip /panelind \
    # The C libraries it wants, so that the small image below can be run by itself.
    && ldd /panelind | grep -o '/[^ ]*' | xargs -I '{}' install -D '{}' '/libraries{}'

FROM scratch AS panelind
COPY --from=build /libraries /
COPY --from=build /panelind /panelind
USER 65532:65532
ENTRYPOINT ["/panelind"]

FROM python:3.11-slim AS dependencies
COPY Examples/agent/requirements.txt /tmp/requirements.txt
RUN python -m venv --without-pip /opt/agent \
    && pip --python /opt/agent/bin/python install --no-cache-dir --require-hashes -r /tmp/requirements.txt

FROM python:3.11-slim
ARG REVISION=unknown
LABEL org.opencontainers.image.title="panelin-api" \
      org.opencontainers.image.description="The quoting agent, supervised by panelind" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/agent/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/agent
COPY --from=panelind /panelind /usr/local/bin/panelind
COPY --from=dependencies /opt/agent /opt/agent
COPY Examples/agent/api.py Examples/agent/pricing.py Examples/agent/prices.json ./
# Compiled once here instead of at every cold start, on a root that may be read-only.
RUN python -m compileall -q .
USER 65532:65532
EXPOSE 8080
# The sidecar is on the same port whatever $PORT is. A worker that is away for a moment is panelind's business: three misses.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/panelind", "probe", "http://127.0.0.1:8081/ready"]
# No shell on the way of a signal: panelind is PID 1, expands what has to be expanded, and starts the worker itself.
ENTRYPOINT ["/usr/local/bin/panelind"]
CMD ["run", "--", "uvicorn", "api:app", "--uds", "{socket}"]
