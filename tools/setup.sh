#!/bin/sh
# Make a virtual environment from requirements/dev.lock, hashes checked, with this project in it as editable.
#
# Debian's python3 without python3-venv has no ensurepip: then the environment starts without a pip of its own, and
# the pip that is there installs into it from outside. Nothing global is changed on either way.
set -eu

venv=$1
python=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*"; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "needs python 3.11 or newer, and $python is $("$python" --version 2>&1). Try: make setup PYTHON=python3.11" >&2
    exit 2
}

if ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "making $venv"
    rm -rf "$venv"
    # The log stays out of sight: the first line fails as a matter of course on such a Debian.
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        say "no ensurepip here: making it without its own pip"
        rm -rf "$venv"
        "$python" -m venv --without-pip "$venv"
    fi
fi

if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
else
    "$python" -m pip --version >/dev/null 2>&1 || {
        say "$python has no pip. On Debian: apt-get install python3-pip" >&2
        exit 2
    }
    pip() { "$python" -m pip --disable-pip-version-check --python "$venv/bin/python" "$@"; }
fi

say "installing requirements/dev.lock"
pip install --quiet --require-hashes -r requirements/dev.lock
# The build back end comes from the lock too: with build isolation pip would fetch it, unhashed.
pip install --quiet --no-deps --no-build-isolation -e .
say "done"
