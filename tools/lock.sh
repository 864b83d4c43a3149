#!/bin/sh
# Write requirements/*.lock: exact versions and the hashes of every file of each release, for all platforms.
#
# dev.lock is resolved first and constrains the others, so a package has one version everywhere.
# uv asks the index that it is configured for (UV_DEFAULT_INDEX) and reads no pip.conf; no address is written.
set -eu

python=$1
uv=$2
tools=build/lock-tools

[ -x "$tools/bin/uv" ] || {
    "$python" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "$uv"
}

compile() {
    "$tools/bin/uv" pip compile --quiet --system-certs --universal --python-version 3.11 --upgrade \
        --generate-hashes --no-header --no-annotate "$@"
}

compile pyproject.toml --extra cloudly --extra dev --output-file requirements/dev.lock
compile pyproject.toml --constraint requirements/dev.lock --output-file requirements/device.lock
compile pyproject.toml --constraint requirements/dev.lock --extra cloudly --output-file requirements/cloudly.lock

# What builds the wheel, for a stage of the images that holds nothing else.
"$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' |
    compile - --constraint requirements/dev.lock --output-file requirements/build.lock
