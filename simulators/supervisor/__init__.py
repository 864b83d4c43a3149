"""A balena Supervisor 19.0.5, true to its recordings: its local API, its applies, its locks, its oddities.

In memory: `Supervisor(world, Setup(one_directory(path), uuid=..., api_key=...), MemoryTargets(...))`, started by
`await tasks.start(supervisor.run)`, talked to through `supervisor.transport()`. Over sockets:
`python -m simulators.supervisor --help`.

Services misbehave by a label of the target state, `io.baseos.simulator.behaviour`:
- `crash-after-start`: runs for 2 s, is `exited` for 1 s, and so on for ever; the update itself counts as applied;
- `never-starts`: its container is made, but does not start; the apply is tried for ever;
- `pull-fails`: the registry has no such image; the apply is tried for ever.

What it was told is in `supervisor.told`; over sockets, on the control port (`GET /told`).

What the host's journal would say of all that is at `POST /v2/journal-logs`: from documentation, not recorded.

What it tells its backend in log lines is in `teller.py`, what containers print now and then is by the label
`io.baseos.simulator.chatter` (seconds).

Not simulated: VPN, deltas, host configuration beyond the host name, whether a contract is met.
"""

from __future__ import annotations

from simulators.supervisor.backend import BackendSetup, BackendTargets
from simulators.supervisor.engine import BEHAVIOUR_LABEL, Behaviour, ContainerEvent
from simulators.supervisor.host_journal import Manner
from simulators.supervisor.locks import directory_each, one_directory
from simulators.supervisor.registry import TokenRegistry
from simulators.supervisor.setup import Setup, Told
from simulators.supervisor.sources import MemoryTargets, Reported, TargetSource, target_state
from simulators.supervisor.state import HostFacts
from simulators.supervisor.supervisor import Supervisor
from simulators.supervisor.timings import Timings

__all__ = [
    "BEHAVIOUR_LABEL",
    "BackendSetup",
    "BackendTargets",
    "Behaviour",
    "ContainerEvent",
    "HostFacts",
    "Manner",
    "MemoryTargets",
    "Reported",
    "Setup",
    "Supervisor",
    "TargetSource",
    "Timings",
    "TokenRegistry",
    "Told",
    "directory_each",
    "one_directory",
    "target_state",
]
