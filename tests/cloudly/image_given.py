"""Real images: a partition table by sfdisk, a boot partition by mkfs.vfat, files in it by mtools. No root needed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
TOOLS = {"sfdisk": "fdisk", "mkfs.vfat": "dosfstools", "mcopy": "mtools"}
MB = 1 << 20
STOCK = {
    "deviceType": "raspberrypi4-64",
    "persistentLogging": False,
    "wifiKey": "wifi-canary-password",
}
DEVICE_TYPE = {"slug": "raspberrypi4-64", "arch": "aarch64", "name": "Raspberry Pi 4"}


def need_tools() -> None:
    """A missing tool fails the test: a skip would be a test that nobody runs."""
    missing = [
        f"{tool} ({package})"
        for tool, package in TOOLS.items()
        if not shutil.which(tool, path=PATH)
    ]
    assert not missing, f"these tests need {', '.join(missing)}; `.ci/run` installs them as root"


def tool(*words: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        [str(word) for word in words],
        input=stdin, capture_output=True, check=False,
        env={"PATH": PATH, "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@dataclass
class Disk:
    """An image, and where its boot partition lies."""

    path: Path
    start: int
    size: int

    @property
    def drive(self) -> str:
        return f"{self.path}@@{self.start}"

    def read(self, name: str = "config.json") -> bytes:
        return tool("mcopy", "-n", "-i", self.drive, f"::/{name}", "-")

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read())
        return found

    def put(self, name: str, content: bytes) -> None:
        tool("mcopy", "-o", "-i", self.drive, "-", f"::/{name}", stdin=content)

    def names(self) -> set[str]:
        listed = tool("mdir", "-a", "-b", "-i", self.drive, "::/").decode().splitlines()
        return {line.removeprefix("::/") for line in listed if line}

    def hashes(self) -> tuple[str, str]:
        """Of all that lies before and after the boot partition, and of the partition."""
        raw = self.path.read_bytes()
        inside = raw[self.start : self.start + self.size]
        outside = raw[: self.start] + raw[self.start + self.size :]
        return hashlib.sha256(outside).hexdigest(), hashlib.sha256(inside).hexdigest()

    def partition(self) -> bytes:
        return self.path.read_bytes()[self.start : self.start + self.size]

    def wrong(self) -> str:
        """What fsck says of the boot partition; empty: nothing."""
        alone = self.path.with_suffix(".boot")
        alone.write_bytes(self.partition())
        done = subprocess.run(
            ["fsck.fat", "-n", str(alone)], env={"PATH": PATH}, capture_output=True, check=False
        )
        alone.unlink()
        return "" if done.returncode == 0 else done.stdout.decode()


def disk(
    path: Path,
    *,
    table: str = "gpt",
    label: str = "resin-boot",
    boot_mb: int = 16,
    bits: int = 16,
    config: dict[str, Any] | bytes | None = STOCK,
    logical: bool = False,
) -> Disk:
    """Like an image of balenaOS: boot, two roots that hold noise, and a state partition."""
    need_tools()
    boot = f"size={boot_mb}MiB, type={'U' if table == 'gpt' else 'c'}"
    rest = "size=4MiB\nsize=4MiB"
    if logical:
        layout = f"size=4MiB\nsize={boot_mb + 12}MiB, type=E\n{path}5 : {boot}\n{path}6 : size=4MiB"
    else:
        layout = f"{boot}\n{rest}\nsize=4MiB"
    with path.open("wb") as file:
        file.truncate((boot_mb + 24) * MB)
        file.seek((boot_mb + 6) * MB)
        file.write(os.urandom(MB))  # noqa: TID251 - noise that must stay as it is
    tool("sfdisk", "-q", path, stdin=f"label: {table}\n{layout}\n".encode())
    parts = json.loads(tool("sfdisk", "--json", path))["partitiontable"]["partitions"]
    found = next(
        one
        for one in parts
        if one["size"] == boot_mb * 2048 and one["type"].lower() not in {"5", "f"}
    )
    made = Disk(path, found["start"] * 512, boot_mb * MB)
    alone = path.with_suffix(".new")
    alone.touch()
    os.truncate(alone, boot_mb * MB)
    tool("mkfs.vfat", "-F", str(bits), "-n", label, "-S", "512", alone)
    with path.open("r+b") as file:
        file.seek(made.start)
        file.write(alone.read_bytes())
    alone.unlink()
    made.put("device-type.json", json.dumps(DEVICE_TYPE).encode())
    made.put("bootloader.bin", b"\x7f" * 300_000)
    if config is not None:
        made.put(
            "config.json", config if isinstance(config, bytes) else json.dumps(config).encode()
        )
    return made
