"""What this process costs: memory now, and CPU time so far. Linux only."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Cost:
    memory_bytes: int
    """Resident now, not at its highest."""
    cpu_s: float

    @classmethod
    def now(cls) -> Cost:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(pages * PAGE_BYTES, used.ru_utime + used.ru_stime)
