"""The update lock, in its two forms: the file that the Supervisor sees, and the leases that neighbours hold."""

from __future__ import annotations

from baserunner.locks.file import UpdateLock

__all__ = ["UpdateLock"]
