"""The programs that know disks: sfdisk, mtools, fsck.fat. Each is named with its Debian package when it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess

from cloudly.problems import BadOrder

PACKAGES = {
    "sfdisk": "fdisk",
    "mcopy": "mtools",
    "mdel": "mtools",
    "mdir": "mtools",
    "mlabel": "mtools",
    "mren": "mtools",
    "fsck.fat": "dosfstools",
}
WITHIN_S = 120
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""A person's PATH often lacks sbin, and then sfdisk seems to be missing."""
TAIL = 300


class ProgramFailed(BadOrder):
    """A program said no; its words, the last line of them."""

    def __init__(self, program: str, said: str) -> None:
        super().__init__(f"{program}: {said or 'failed without a word'}")
        self.said = said


def need(*programs: str) -> None:
    """Raises BadOrder that names what is missing, all at once."""
    missing = sorted(one for one in programs if _where(one) is None)
    if missing:
        packages = sorted({PACKAGES[one] for one in missing})
        raise BadOrder(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, and an image"
            f" cannot be opened without: apt-get install {' '.join(packages)}"
        )


def run(program: str, *arguments: str, stdin: bytes = b"", ok: tuple[int, ...] = (0,)) -> bytes:
    """What it prints. Nothing secret is ever an argument. Raises ProgramFailed."""
    need(program)
    environment = {
        "PATH": _path(),
        "LC_ALL": "C.UTF-8",
        "MTOOLSRC": "/dev/null",
        "MTOOLS_SKIP_CHECK": "1",
    }
    try:
        done = subprocess.run(  # noqa: S603 - one of the programs above
            [str(_where(program)), *arguments],
            input=stdin,
            capture_output=True,
            env=environment,
            timeout=WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProgramFailed(program, f"no end within {WITHIN_S} s") from None
    if done.returncode not in ok:
        raise ProgramFailed(program, _last_line(done.stderr) or _last_line(done.stdout))
    return done.stdout


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", ""), PATH))


def _where(program: str) -> str | None:
    return shutil.which(program, path=_path())


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines()]
    return next((line[:TAIL] for line in reversed(lines) if line), "")
