# Three images: `device` (the agent), `cloudly` (the control plane), `simulator` (a device on a desk).
#
#   docker build --target device .
#
# Every package is installed from a lock with hashes; nothing is compiled (tools/check_arm.py watches that for ARM).

FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1


# --- wheels of this project: one with the device's rooms, one with all of them -----------------------------------
FROM base AS wheels
COPY requirements/build.lock /src/
RUN python -m venv --without-pip /build \
 && python -m pip --python /build/bin/python install --no-cache-dir --require-hashes -r /src/build.lock
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY journal journal
COPY interfaces interfaces
COPY baserunner baserunner
RUN /build/bin/python -m hatchling build -t wheel -d /wheels/device
COPY cloudly cloudly
COPY onebox onebox
COPY simulators simulators
RUN /build/bin/python -m hatchling build -t wheel -d /wheels/all


# --- the agent ------------------------------------------------------------------------------------------------
FROM base AS device-packages
COPY requirements/device.lock /
RUN python -m venv --without-pip /opt/baseos \
 && python -m pip --python /opt/baseos/bin/python install --no-cache-dir --require-hashes -r /device.lock
COPY --from=wheels /wheels/device /wheels
# The wheel names every command of the distribution; the control plane is not in this image, so its command goes.
RUN python -m pip --python /opt/baseos/bin/python install --no-cache-dir --no-deps /wheels/*.whl \
 && rm /opt/baseos/bin/cloudly \
 && /opt/baseos/bin/python -m compileall -q /opt/baseos/lib

FROM base AS device
COPY --from=device-packages /opt/baseos /opt/baseos
COPY docker/entrypoint.py /opt/baseos/entrypoint.py
COPY docker/baserunner /usr/local/bin/baserunner
# A new volume takes over its folder's owner.
RUN install -d -o 1001 -g 1001 -m 0700 /data/baseos \
 && install -d -o 1001 -g 1001 -m 0750 /run/baseos
ENV BASEOS_DATA_DIR=/data \
    SERVEZONE_RUNTIME=baseos
# No USER: /usr/local/bin/baserunner starts as root, mends ownership, and becomes uid 1001 before the agent starts.
ENTRYPOINT ["/usr/local/bin/baserunner"]
CMD ["run"]


# --- the control plane ------------------------------------------------------------------------------------------
FROM base AS cloudly
COPY requirements/cloudly.lock /
RUN python -m venv --without-pip /opt/baseos \
 && python -m pip --python /opt/baseos/bin/python install --no-cache-dir --require-hashes -r /cloudly.lock
COPY --from=wheels /wheels/all /wheels
RUN python -m pip --python /opt/baseos/bin/python install --no-cache-dir --no-deps /wheels/*.whl \
 && /opt/baseos/bin/python -m compileall -q /opt/baseos/lib \
 && install -d -o 1001 -g 1001 -m 0700 /var/lib/cloudly
ENV PATH=/opt/baseos/bin:$PATH \
    CLOUDLY_DATA_DIR=/var/lib/cloudly \
    CLOUDLY_HOST=0.0.0.0
USER 1001:1001
EXPOSE 8080
# The page has no login yet, so an image that listens for others serves none.
CMD ["cloudly", "serve", "--no-page"]


# --- a Supervisor without a device -------------------------------------------------------------------------------
FROM cloudly AS simulator
USER root
# Volumes take over the owner of the folder that they are mounted on.
RUN install -d -o 1001 -g 1001 -m 1777 /tmp/balena \
 && install -d -o 1001 -g 1001 -m 0700 /var/lib/supervisor
USER 1001:1001
CMD ["python", "-m", "simulators.supervisor", "--help"]
