"""`baserunner doctor`: settings, data, journal, identity, clock, Cloudly, Supervisor; each with what to do."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from baserunner.finding import LITTLE_SPACE_BYTES, NO_SUPERVISOR, Finding, clock_finding
from baserunner.identity import FILE, read_identity
from baserunner.local_api.look import look_at_local_api
from baserunner.neighbours.supervisor import HttpSupervisor
from baserunner.place import home_in, read_data_dir
from baserunner.problems import IdentityProblem, NeighbourProblem, SettingsProblem
from baserunner.settings import Environment, Settings, read_settings
from baserunner.trust import verification, why_distrusted
from baserunner.words import said
from interfaces.world import RealWorld
from journal.lock import holder
from journal.problems import JournalProblem, NoJournal
from journal.reader import open_reader
from journal.verify import verify

WITHIN_S = 10.0
NOBODY = 65534


async def examine(environment: Environment) -> list[Finding]:
    """Look at everything, change nothing but one temporary file.

    With a bad setting, still at all that is on this device: the one that is bad may be another day's trouble.
    """
    try:
        settings = read_settings(dict(environment))
    except SettingsProblem as problem:
        todo = "set it in the compose file or the fleet's variables"
        return [Finding("bad", "settings", str(problem), todo), *_here(read_data_dir(environment))]
    findings = [
        Finding("ok", "settings", "complete"),
        _runtime(settings),
        *_here(settings.data_dir),
        _identity(settings),
    ]
    trusted = verification(settings.cloudly_url, settings.cloudly_ca)
    async with httpx.AsyncClient(timeout=WITHIN_S, trust_env=False, verify=trusted) as client:
        findings += await _cloudly(client, settings)
    plain = verification(settings.supervisor_address or "", None)
    async with httpx.AsyncClient(timeout=WITHIN_S, trust_env=False, verify=plain) as client:
        findings.append(await _supervisor(client, settings))
    if settings.local_api is not None:
        findings.append(await look_at_local_api(settings.local_api))
    return findings


def _here(data_dir: Path) -> list[Finding]:
    home = home_in(data_dir)
    return [_user(), _data(data_dir), _journal(home), _agent(home)]


def _runtime(settings: Settings) -> Finding:
    if settings.runtime == "baseos":
        return Finding("ok", "runtime", "SERVEZONE_RUNTIME=baseos")
    return Finding(
        "note",
        "runtime",
        "SERVEZONE_RUNTIME is not set",
        "set SERVEZONE_RUNTIME=baseos, so that a neighbour can tell this is BaseOS",
    )


def _user() -> Finding:
    if os.geteuid() == NOBODY:
        return Finding(
            "bad",
            "user",
            f"uid {NOBODY}: the Supervisor ignores and deletes this user's update locks",
            "run as uid 1001, as the image's entrypoint does",
        )
    return Finding("ok", "user", f"uid {os.geteuid()}")


def _data(data_dir: Path) -> Finding:
    if not data_dir.is_dir():
        seen = f"{data_dir} is {'no directory' if data_dir.exists() else 'missing'}"
        return Finding("bad", "data", seen, "mount a volume there (BASEOS_DATA_DIR)")
    try:
        with tempfile.TemporaryFile(dir=data_dir) as probe:
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return Finding(
            "bad",
            "data",
            f"cannot write to {data_dir}: {error.strerror}",
            "check owner, mode and space of the volume",
        )
    free = shutil.disk_usage(data_dir).free
    if free < LITTLE_SPACE_BYTES:
        return Finding("note", "data", f"{free // 1_000_000} MB free in {data_dir}", "make room")
    return Finding("ok", "data", f"{data_dir} is writable, {free // 1_000_000} MB free")


def _journal(home: Path) -> Finding:
    try:
        with open_reader(home) as reader:
            found = verify(reader)
    except NoJournal:
        return Finding("note", "journal", "there is none yet", "`baserunner run` makes it")
    except JournalProblem as problem:
        return Finding("bad", "journal", f"{problem.tried}: {problem.seen}", problem.todo)
    except OSError as error:
        seen = f"cannot look into {home}: {error.strerror}"
        return Finding("bad", "journal", seen, "run as the agent's user or root")
    if not found.ok:
        first = found.problems[0]
        return Finding(
            "bad",
            "journal",
            f"{len(found.problems)} faults, first: {first.what}",
            "keep a copy; `baserunner journal verify`",
        )
    whole = f"{found.events} facts, chain unbroken"
    if found.began is None:
        return Finding("ok", "journal", whole)
    return Finding(
        "note",
        "journal",
        f"{whole}; {said('epoch-began', json.dumps(found.began))}",
        "nothing: this one goes on; the old files may be looked at (`baserunner journal list --file`) and removed",
    )


def _identity(settings: Settings) -> Finding:
    try:
        identity = read_identity(settings.home)
    except IdentityProblem as problem:
        return Finding(
            "bad",
            "identity",
            str(problem),
            "the agent keeps it aside and asks for a new join token",
        )
    if identity is None or identity.node_token is None:
        if settings.join_token is None:
            return Finding(
                "bad",
                "identity",
                "not enrolled, and no join token",
                "set BASEOS_JOIN_TOKEN or run `baserunner enroll`",
            )
        return Finding(
            "note", "identity", "not enrolled yet", "`baserunner run` enrolls with the join token"
        )
    mode = (settings.home / FILE).stat().st_mode & 0o777
    if mode != 0o600:
        return Finding(
            "bad", "identity", f"{FILE} has mode {mode:o}", f"chmod 600 {settings.home / FILE}"
        )
    return Finding("ok", "identity", f"node {identity.node_id}")


def _agent(home: Path) -> Finding:
    pid = holder(home)
    if pid is None and os.access(home, os.R_OK):
        return Finding("note", "agent", "does not run", "start `baserunner run`")
    if pid is None:
        return Finding("note", "agent", f"none seen in {home}", "start `baserunner run`")
    return Finding("ok", "agent", f"runs, pid {pid}")


async def _cloudly(client: httpx.AsyncClient, settings: Settings) -> list[Finding]:
    try:
        response = await client.get(settings.cloudly_url + "/healthz", follow_redirects=False)
    except httpx.HTTPError as error:
        if (distrust := why_distrusted(error)) is not None:
            return [Finding("bad", "cloudly", f"cannot be trusted: {distrust.seen}", distrust.todo)]
        return [
            Finding(
                "bad",
                "cloudly",
                f"cannot be reached: {type(error).__name__}",
                "check BASEOS_CLOUDLY_URL, name resolution, the network and the certificate",
            )
        ]
    if response.status_code != httpx.codes.OK:
        return [
            Finding(
                "bad",
                "cloudly",
                f"answers {response.status_code} at /healthz",
                "is this Cloudly, or a portal in between?",
            )
        ]
    return [Finding("ok", "cloudly", "answers"), _clock(response.headers.get("date"))]


def _clock(date: str | None) -> Finding:
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return Finding("note", "clock", "Cloudly sends no date to compare with")
    skew_s = (RealWorld().now() - theirs).total_seconds()
    return clock_finding(skew_s)


async def _supervisor(client: httpx.AsyncClient, settings: Settings) -> Finding:
    if settings.supervisor_address is None or settings.supervisor_key is None:
        return Finding(
            "note",
            "supervisor",
            "no address and key: updates are not possible",
            NO_SUPERVISOR,
        )
    supervisor = HttpSupervisor(client, settings.supervisor_address, settings.supervisor_key)
    try:
        await supervisor.ping()
        version = await supervisor.version()
    except NeighbourProblem as problem:
        return Finding(
            "bad",
            "supervisor",
            str(problem),
            "check the address, the key and that the Supervisor runs",
        )
    return Finding("ok", "supervisor", f"version {version}")
