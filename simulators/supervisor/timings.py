"""How long the Supervisor takes for what it does: the recorded timelines, divided by `speed`.

Source: `TIMELINE_update_r1_to_r2.json` (3 MB image, local registry), seconds after the POST: applying/Downloading 0.4,
Downloaded 1.2, Stopping 2.8, no container 4.0, Deleting 4.6, Installing 6.0, Starting 6.2, Running 7.1, `release` new
8.6, applied 10.2. The other recordings lie within two seconds of it, mostly below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BACK_OFF_S: Final = 1.0
"""The first wait after a failed apply; it doubles: 1, 2, 4, 8, 16, 32 s, ... up to the poll interval."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds at speed 1."""

    notice_s: float = 0.3
    """From the 204 until the target has been fetched; the old state still says `applied` (0.2-0.4 s)."""
    look_s: float = 0.15
    """From the start of an apply to its first step."""
    download_s: float = 0.8
    settle_s: float = 1.3
    """Between one step and the next."""
    rename_s: float = 0.4
    """Until a container that needs no stop has its new name, and after a row was written for content that is there."""
    stop_s: float = 1.2
    delete_s: float = 0.15
    install_s: float = 0.15
    start_s: float = 0.9
    refuse_s: float = 0.3
    """Until the registry has refused an image."""
    action_s: float = 2.5
    """`/v1/restart` and `/v1/purge` answer after 4-6 s; this is the part beside stop and start."""
    crash_after_s: float = 2.0
    """How long a service with the behaviour `crash-after-start` runs."""
    crash_gap_s: float = 1.0
    """How long it then stays `exited` before the engine starts it again."""
    close_s: float = 0.005
    """From the 202 of a reboot until the socket closes."""
    boot_s: float = 20.0
    poll_jitter_s: float = 60.0
    report_every_s: float = 10.0
    """At most one state report per this long."""
    report_retry_s: float = 15.0
    """After a report that was refused without a Retry-After; it doubles, up to the poll interval (code)."""
    metrics_every_s: float = 300.0
    """Metrics alone are worth a report at most every so long."""
    wake_s: float = 0.1
    """From the first log line until it asks its backend for anything."""
    first_report_s: float = 1.0
    """From the first poll until the first report."""
    join_retry_s: float = 4.2
    """After a failed registration; `bootstrapRetryDelay` of the recorded device. The default is 30 s (code)."""
    poll_retry_s: float = 15.0
    """After a failed poll (code)."""
    configure_s: float = 0.1
    """Until the settings have changed."""
    token_s: float = 0.05
    """Between the engine's requests to a registry."""

    def back_off_s(self, failures: int, *, at_most_s: float) -> float:
        """The wait after this many failed applies in a row (1 for the first)."""
        return min(BACK_OFF_S * 2.0 ** min(failures - 1, 20), at_most_s)
