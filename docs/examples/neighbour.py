"""A neighbour app on BaseOS: it finds the runtime, shows it, and makes a backup that no update may disturb.

    python neighbour.py FROM TO     copies the folder FROM to the new folder TO

Exit codes: 0 copied, 1 an update is being applied or the lock was lost (try again later), 2 this is not BaseOS.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from onebox import BaseOSRuntime, LockLost, NotBaseOS, Refused, Unreachable, detect


def main(source: Path, target: Path) -> int:
    runtime = detect(os.environ)
    if isinstance(runtime, NotBaseOS):
        print("not BaseOS:", "; ".join(runtime.reasons))
        return 2
    with runtime:
        show(runtime)
        try:
            with runtime.update_lock("example/backup", "copies its data", wait_s=60) as lock:
                print(f"locked until it is done (lease {lock.lock.lock[:8]})")
                copy(source, target, check=lock.check)
        except (Refused, Unreachable, LockLost) as problem:
            shutil.rmtree(target, ignore_errors=True)
            print("no backup this time:", problem)
            return 1
    print(f"copied to {target}")
    return 0


def show(runtime: BaseOSRuntime) -> None:
    """What a system status page would."""
    status = runtime.status()
    release = status.release.version or status.release.commit if status.release else "unknown"
    print(f"BaseOS: node {status.node_id or '(not enrolled)'}, release {release}")
    if status.update is not None:
        print(f"update to {status.update.version}: {status.update.state}")
    for waiting in status.waiting:
        print(f"{waiting.stream} is {waiting.state}: waits for {waiting.waits_for}")


def copy(source: Path, target: Path, *, check: Callable[[], None]) -> None:
    """File by file; between two of them it is seen whether the lock is still held."""
    target.mkdir()
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        check()
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
