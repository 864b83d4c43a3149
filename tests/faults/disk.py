"""A disk that fails on demand, in a process of ours: `failing_disk.c`, loaded before libc and told through ctypes."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("failing_disk.c")


def compiled(into: Path) -> Path:
    """The library, in that directory."""
    library = into / "failing_disk.so"
    compile_it = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-ldl"]
    subprocess.run([*compile_it, "-o", str(library), str(SOURCE)], check=True)
    return library


def with_it(library: Path) -> Mapping[str, str]:
    """The environment of a process that has such a disk."""
    return {**os.environ, "LD_PRELOAD": str(library)}


def is_loaded() -> bool:
    """Whether this process was started `with_it`."""
    return hasattr(ctypes.CDLL(None), "disk_watch")


class FailingDisk:
    """What is under one directory. Only in a process that was started `with_it`."""

    def __init__(self, directory: Path, image: Path, code: int) -> None:
        """`image`: where to keep what a power cut would leave. `code`: the errno of the failure to come.

        Calls are counted from now on.
        """
        assert is_loaded(), "this process was started without the failing disk"
        self._loaded = ctypes.CDLL(None)
        self._loaded.disk_first_failed.restype = ctypes.c_char_p
        self._loaded.disk_watch(str(directory).encode(), str(image).encode(), code)
        self.image = image

    def will_fail(self, nth: int, *, for_good: bool) -> None:
        """The `nth` call from now on (1: the next) fails, once or until it `heals`."""
        self._loaded.disk_will_fail(ctypes.c_long(nth), ctypes.c_long(-1 if for_good else 1))

    def heals(self) -> None:
        self._loaded.disk_heals()

    @property
    def is_well(self) -> bool:
        """Whether it has failed all it had to fail."""
        return bool(self._loaded.disk_is_well())

    @property
    def calls(self) -> int:
        return int(self._loaded.disk_calls())

    @property
    def fired(self) -> int:
        """How many calls have failed."""
        return int(self._loaded.disk_fired())

    @property
    def first_failed(self) -> str:
        """Which call it was, and on what."""
        said: bytes = self._loaded.disk_first_failed()
        return said.decode()
