# The program for docker-compose.yml: workers, dashboard and the small commands. The GPU worker has LOCK=requirements-gpu.lock.
FROM python:3.13-slim AS build
ARG LOCK=requirements.lock
WORKDIR /build
RUN python3 -m venv /venv
COPY ${LOCK} .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r ${LOCK}
COPY pyproject.toml README.md LICENSE ./
COPY affinity_search affinity_search
COPY studies studies
COPY storage storage
COPY search search
# setuptools comes from the lock, as everything else does.
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.13-slim
# Whoever made the secrets: nobody else may read them.
ARG UID=10001
RUN useradd --uid ${UID} --non-unique --no-create-home --home-dir /tmp affinity && install -d -o ${UID} /files
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER ${UID}
ENTRYPOINT ["affinity-search"]
