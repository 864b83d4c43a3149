"""The app update machine: one attempt at one deployment. Pure.

Laws:
- Staging is real: while the agent holds its update lock the Supervisor downloads but does not apply.
- `download-requested` and `apply-requested` are intents: durable before the Supervisor is told. The state after an
  intent means "it may have happened": its step begins by asking the Supervisor what is.
- Succeeded means: the Supervisor reports this release, applied, with these images by digest, and every service ran
  without a break for the soak. A 204 from `/v1/update` proves nothing.
- Neither the apply nor the rollback is asked for while a neighbour holds an update lock; none begins in `NO_NEW_LOCK`.
- Rollback is Cloudly's to order (its target decides what the Supervisor runs); the same attempt carries it out.
- An outcome, once written, never changes: the four final states have no way out. A deployment is attempted once.

Source: DESIGN section 4; the Supervisor's behaviour: recordings in tests/recordings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact
from journal.recall import Machine

# fmt: off
CHART = Chart(
    name="app-update",
    initial="new",
    arrows=(
        #     fact                  from               to
        Arrow("offered",            "new",             "offered"),
        Arrow("admitted",           "offered",         "admitted"),
        Arrow("superseded",         "offered",         "superseded"),
        Arrow("download-requested", "admitted",        "downloading"),
        Arrow("superseded",         "admitted",        "superseded"),
        Arrow("staged",             "downloading",     "staged"),
        Arrow("found-applied",      "downloading",     "verifying"),
        Arrow("download-failed",    "downloading",     "failed"),
        Arrow("superseded",         "downloading",     "superseded"),
        Arrow("apply-requested",    "staged",          "applying"),
        Arrow("staging-lost",       "staged",          "admitted"),
        Arrow("found-applied",      "staged",          "verifying"),
        Arrow("superseded",         "staged",          "superseded"),
        Arrow("applied",            "applying",        "verifying"),
        Arrow("apply-retried",      "applying",        "applying"),
        Arrow("force-requested",    "applying",        "applying"),
        Arrow("superseded",         "applying",        "superseded"),
        Arrow("apply-unclear",      "applying",        "unclear"),
        Arrow("apply-failed",       "applying",        "rollback-needed"),
        Arrow("applied",            "unclear",         "verifying"),
        Arrow("apply-failed",       "unclear",         "rollback-needed"),
        Arrow("superseded",         "unclear",         "superseded"),
        Arrow("health-passed",      "verifying",       "succeeded"),
        Arrow("health-failed",      "verifying",       "rollback-needed"),
        Arrow("superseded",         "verifying",       "superseded"),
        Arrow("rollback-requested", "rollback-needed", "rolling-back"),
        Arrow("superseded",         "rollback-needed", "superseded"),
        Arrow("rolled-back",        "rolling-back",    "rolled-back"),
        Arrow("rollback-failed",    "rolling-back",    "failed"),
    ),
    waits={
        #                         owner         waits for                                        deadline  then                                    resume
        "new":             Waits("us",         "the offer to be written",                       None,     "the offer is written",                 "the next heartbeat offers it again"),
        "offered":         Waits("supervisor", "the Supervisor to be there, and the journal to be in step with Cloudly",                    None,     "the update is admitted",               "go on; admission is not asked again once given"),
        "admitted":        Waits("us",         "the update lock",                               None,     "the download is asked for",            "take the lock, ask for the download"),
        "downloading":     Waits("supervisor", "every image of the release, by digest",         3600.0,   "the update fails; the old release stays", "ask what is there; ask for the download again only if it is not under way"),
        "staged":          Waits("us",         "consent, window and locks: none stands in the way", None, "it is applied",                        "check by digest that what was staged is still there"),
        "applying":        Waits("supervisor", "the release to be reported as applied",         600.0,    "tried again, as often as the policy allows (max_apply_attempts); then a rollback is needed", "new release: verifying; old: again or rollback-needed; neither: unclear"),
        "unclear":         Waits("operator",   "the Supervisor to report the old or the new release as a whole", 3600.0, "a rollback is needed",    "ask the Supervisor again"),
        "verifying":       Waits("us",         "every service to run without a break for the soak", 300.0, "the health check has failed: a rollback is needed", "the soak starts again; crashes in it count"),
        "rollback-needed": Waits("cloudly",    "Cloudly to turn the target back to the last good release", None, "the rollback begins",          "the next heartbeat says"),
        "rolling-back":    Waits("supervisor", "the last good release to be reported as applied", 600.0,  "the update has failed; an operator is needed", "again: it is idempotent"),
    },
    final=frozenset({"succeeded", "failed", "superseded", "rolled-back"}),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient this attempt is; durations in seconds. Source: `interfaces.desired.UpdatePolicy`."""

    download_deadline_s: float = 3600.0
    apply_deadline_s: float = 600.0
    health_soak_s: float = 60.0
    health_deadline_s: float = 300.0
    max_apply_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Release:
    """One release as the Supervisor would report it: its commit, and (service, image by digest) pairs."""

    commit: str = ""
    version: str = ""
    images: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AppUpdate:
    """What one attempt believes."""

    deployment: str = ""
    generation: int = 0
    target: Release = Release()
    policy: Policy = Policy()
    previous: Release = Release()
    """What ran when the update was admitted; without a commit: nothing."""
    apply_attempts: int = 0
    forced: bool = False
    """An operator asked to break the locks of others."""
    reason: str = ""
    rollback: Release = Release()
    rollback_deployment: str = ""


def fold(believed: AppUpdate, fact: Fact) -> AppUpdate:
    """Source of every field: the fact of the same name in `steps.py`."""
    values = fact.values
    match fact.kind:
        case "offered":
            return AppUpdate(
                deployment=values["deployment"],
                generation=values["generation"],
                target=_release(values),
                policy=Policy(**values["policy"]),
            )
        case "admitted":
            return replace(
                believed,
                previous=Release(
                    commit=values["running"] or "", images=_pairs(values.get("images", []))
                ),
            )
        case "apply-requested" | "apply-retried":
            return replace(believed, apply_attempts=believed.apply_attempts + 1)
        case "force-requested":
            return replace(believed, forced=True)
        case "rollback-requested":
            return replace(
                believed,
                rollback=_release(values),
                rollback_deployment=values["rollback_deployment"],
            )
        case "applied" | "found-applied":
            return replace(believed, reason="")
        case _:
            return replace(believed, reason=values.get("reason", believed.reason))


def _release(values: dict[str, object]) -> Release:
    return Release(
        commit=str(values["release"]),
        version=str(values["version"]),
        images=_pairs(values["images"]),
    )


def _pairs(images: object) -> tuple[tuple[str, str], ...]:
    assert isinstance(images, list)  # noqa: S101 - our own fact; a mistake of ours if not
    return tuple((str(service), str(image)) for service, image in images)


MACHINE = Machine(chart=CHART, start=AppUpdate(), fold=fold)

UNDISTURBED = frozenset({"applying", "unclear", "verifying", "rolling-back"})
"""States in which the device must not be rebooted by us."""

NO_NEW_LOCK = UNDISTURBED | {"rollback-needed"}
"""States in which no neighbour's update lock begins: what runs here is changed, on trial, or about to be turned back."""


def deadline_s(state: str, believed: AppUpdate) -> float | None:
    """How long this state may last, in seconds from its entry; None: as long as it takes."""
    match state:
        case "downloading":
            return believed.policy.download_deadline_s
        case "applying":
            return believed.policy.apply_deadline_s * max(believed.apply_attempts, 1)
        case "rolling-back":
            return believed.policy.apply_deadline_s
        case "verifying":
            return believed.policy.health_deadline_s
        case _:
            return CHART.waits[state].deadline_s
