"""The host underneath: what can be read of it from inside the container. Unknown is None, never a guess."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import socket
import struct
from pathlib import Path
from typing import Protocol

from interfaces.reported import Space

SIOCGIFADDR = 0x8915
"""Source: netdevice(7)."""


class Host(Protocol):
    """What the agent reads of its host."""

    def uptime_s(self) -> float: ...
    def memory(self) -> Space | None: ...
    def disk(self) -> Space | None: ...
    def temperature_c(self) -> float | None: ...
    def addresses(self) -> tuple[str, ...]: ...
    def hostname(self) -> str: ...


class RealHost:
    """/proc, /sys, and the file system that holds `data_dir`."""

    def __init__(self, data_dir: Path, *, root: Path = Path("/")) -> None:
        self._data_dir = data_dir
        self._root = root

    def uptime_s(self) -> float:
        """Seconds since boot; 0 where it cannot be read. Source: proc(5)."""
        try:
            return float((self._root / "proc/uptime").read_text(encoding="ascii").split()[0])
        except (OSError, ValueError, IndexError):
            return 0.0

    def memory(self) -> Space | None:
        """MemTotal and MemAvailable. Source: proc(5)."""
        try:
            lines = (self._root / "proc/meminfo").read_text(encoding="ascii").splitlines()
            kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if ":" in line}
            return Space(total_bytes=kib["MemTotal"] * 1024, free_bytes=kib["MemAvailable"] * 1024)
        except (OSError, ValueError, IndexError, KeyError):
            return None

    def disk(self) -> Space | None:
        try:
            usage = shutil.disk_usage(self._data_dir)
        except OSError:
            return None
        return Space(total_bytes=usage.total, free_bytes=usage.free)

    def temperature_c(self) -> float | None:
        """The hottest thermal zone, in degrees Celsius. Source: kernel docs, thermal/sysfs-api."""
        readings = []
        for zone in sorted((self._root / "sys/class/thermal").glob("thermal_zone*/temp")):
            with contextlib.suppress(OSError, ValueError):
                readings.append(int(zone.read_text(encoding="ascii")) / 1000)
        return max(readings, default=None)

    def addresses(self) -> tuple[str, ...]:
        """The IPv4 addresses of this network namespace, without loopback."""
        found = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name[:15].encode())
                with contextlib.suppress(OSError):
                    answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
                    found.append(socket.inet_ntoa(answer[20:24]))
        return tuple(address for address in found if not address.startswith("127."))

    def hostname(self) -> str:
        return socket.gethostname()[:253]
