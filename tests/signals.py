"""What programs hear that tests start."""

from __future__ import annotations

import signal


def hear_signals() -> None:
    """A shell's background job inherits deaf ears for SIGINT, and a nohup for SIGHUP; a terminal's program does not."""
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
