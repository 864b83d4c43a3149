"""Many simulated Supervisors in one process: load for a Cloudly, and the price of a device.

`python -m simulators.fleet --devices 500 --cloudly-url http://127.0.0.1:8080 --join-token-file token --plain-logs`.

Not in here: baserunner. An agent is a program of its own; a fleet has only what the host brings.
"""

from __future__ import annotations

from simulators.fleet.fleet import Fleet, FleetSetup
from simulators.fleet.pool import SharedPool

__all__ = ["Fleet", "FleetSetup", "SharedPool"]
