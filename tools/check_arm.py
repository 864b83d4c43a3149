"""Can a device install `requirements/device.lock` without a compiler? Asks the package index, so it needs a network.

A balena device is 64-bit ARM, 32-bit ARM or x86-64; no compiler is on it, nor in the image's build for it. For each of
them pip is asked for every package of the lock, hashes checked, wheels only. Two answers are good: a pure Python
wheel, or one for that platform. Anything else ends with exit 1 and pip's own words.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = "requirements/device.lock"

# The image is Debian 12 (glibc 2.36), so every manylinux up to that will do. pip wants each one named.
GLIBC = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_31", "manylinux_2_34")
MACHINES = {"armv7l": "32-bit ARM", "aarch64": "64-bit ARM", "x86_64": "x86-64"}


def main() -> int:
    outcomes = [check(machine, called) for machine, called in MACHINES.items()]
    return 0 if all(outcomes) else 1


def check(machine: str, called: str) -> bool:
    """True if every package of the lock has a wheel for this machine; prints what was found."""
    with tempfile.TemporaryDirectory(prefix="baseos-wheels-") as folder:
        asked = subprocess.run(
            download(machine, folder), capture_output=True, text=True, check=False
        )
        if asked.returncode != 0:
            print(f"{called} ({machine}): no\n{asked.stderr.strip()}", file=sys.stderr)
            return False
        wheels = sorted(Path(folder).glob("*.whl"), key=lambda wheel: wheel.name.lower())
    compiled = [wheel.name for wheel in wheels if not wheel.name.endswith("-none-any.whl")]
    pure = len(wheels) - len(compiled)
    print(f"{called} ({machine}): yes, {pure} pure and {len(compiled)} for the platform")
    for name in compiled:
        print(f"    {name}")
    return True


def download(machine: str, folder: str) -> list[str]:
    platforms = [f"--platform={glibc}_{machine}" for glibc in GLIBC]
    return [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"),
        *("--require-hashes", "--no-deps", "--only-binary=:all:", "--no-cache-dir"),
        *("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3"),
        *("--abi=none", *platforms, "--dest", folder, "--requirement", LOCK),
    ]


if __name__ == "__main__":
    sys.exit(main())
