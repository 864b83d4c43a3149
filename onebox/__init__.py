"""What a neighbour app on the same device uses: find BaseOS, show its status, hold its updates up for a while.

    match detect(os.environ):
        case BaseOSRuntime() as runtime:
            with runtime.update_lock("backup", "nightly backup") as lock:
                ...
        case NotBaseOS(reasons):
            ...

Rules:
- BaseOS is detected by its own word alone: `SERVEZONE_RUNTIME`, `BASEOS_AGENT_URL` and a handshake, all three.
- A neighbour never replaces its own container here: `replace_self` says what to do instead.
- Everything there is comes twice, for programs with and without an event loop (anyio: asyncio or trio).
"""

from __future__ import annotations

from onebox.detect import NotBaseOS, detect, detect_async
from onebox.locks import AsyncUpdateLock, UpdateLock
from onebox.problems import DelegatedError, LockLost, OneboxProblem, Refused, Unreachable
from onebox.runtime import AsyncBaseOSRuntime, BaseOSRuntime

__all__ = [
    "AsyncBaseOSRuntime",
    "AsyncUpdateLock",
    "BaseOSRuntime",
    "DelegatedError",
    "LockLost",
    "NotBaseOS",
    "OneboxProblem",
    "Refused",
    "Unreachable",
    "UpdateLock",
    "detect",
    "detect_async",
]
