"""What a fact says, in a sentence for people. The fact's own name always stands beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from interfaces.why import printable

# fmt: off
SENTENCES: dict[str, str] = {
    # enrollment
    "identity-drawn":       "drew node id {node_id} and an enrollment secret; both are durable",
    "identity-lost":        "the identity was lost: {reason}; keeping node id {node_id}",
    "identity-found":       "found the identity of node {node_id} on disk",
    "node-token-rejected":  "Cloudly no longer takes this device for the node: {reason}",
    "token-missing":        "there is no join token",
    "token-given":          "there is a join token to ask with (fingerprint {token_fingerprint})",
    "register-requested":   "will ask Cloudly to enroll node {node_id} (join token {token_fingerprint})",
    "register-unanswered":  "no answer: {reason}; asks again in {retry_s} s",
    "register-refused":     "Cloudly says no: {reason}",
    "node-readmitted":      "Cloudly takes the node token of node {node_id} again",
    "enrolled":             "enrolled as node {node_id}, node token generation {token_generation}",
    # heartbeat
    "run-started":          "the agent started, version {agent_version}",
    "run-ended":            "the run of the agent was {how}",
    "heartbeat-sent":       "reports what is, asks what should be",
    "heartbeat-answered":   "desired generation {generation}, the next one in {next_s} s",
    "heartbeat-unanswered": "{reason}; the next one in {retry_s} s",
    "heartbeat-rejected":   "Cloudly says no: {reason}",
    "heartbeats-summarised": "older heartbeats and lines, already with Cloudly, folded into one",
    # notes
    "epoch-began":          "a new epoch began ({why}): {problem}{kept}",
    "salvaged":             "a fact of the epoch before, kept as evidence only: {stream} {kind}",
    "stream-lost":          "the beginning of {stream} was lost with the epoch before: it is closed",
    "disk-full":            "the disk is full: the journal's reserve is spent",
    # app update
    "offered":              "Cloudly offers release {version} ({release})",
    "admitted":             "the device runs {running} now",
    "superseded":           "gives way: {reason}",
    "download-requested":   "will ask the Supervisor to download, under our update lock",
    "progressed":           "downloaded {percent} %",
    "lines":                "{said}",
    "staged":               "every image is on the device, by digest; the old release still runs",
    "found-applied":        "the Supervisor already reports the release as applied",
    "download-failed":      "the download failed: {reason}",
    "staging-lost":         "what was staged is gone: {reason}",
    "apply-requested":      "will release the update lock and ask the Supervisor to apply",
    "applied":              "the Supervisor reports the release as applied",
    "apply-retried":        "tries again: {reason}",
    "force-requested":      "{by} asked to apply by force: locks of others are deleted",
    "apply-unclear":        "unclear: {reason}",
    "apply-failed":         "the apply failed: {reason}",
    "health-passed":        "every service ran without a break for {soak_s} s: committed",
    "health-failed":        "the health check failed: {reason}",
    "rollback-requested":   "Cloudly turned the target back to release {version} ({release})",
    "rolled-back":          "the last good release {release} runs again",
    "rollback-failed":      "the rollback failed: {reason}",
    # diagnosis
    "diagnosis-asked":      "Cloudly asks for a diagnosis ({diagnosis})",
    "diagnosis-answered":   "looked at the device: {said}",
    # node token
    "rotation-asked":       "Cloudly asks for another node token, generation {generation}",
    "token-drawn":          "drew another node token ({fingerprint}); it is durable beside the one in use",
    "token-announced":      "Cloudly has the hash of the new node token: it may be used",
    "token-switched":       "uses the new node token, generation {generation}, from now on",
    "token-proved":         "Cloudly took the new node token, generation {generation}; the old one is of no use now",
    "rotation-dropped":     "the node token stays as it is: {reason}",
    "token-refused":        "Cloudly refuses node token {fingerprint}: {reason}",
    "token-turned":         "tries another node token, generation {generation} ({fingerprint})",
    "token-taken":          "Cloudly takes this one: it is the node's",
    "tokens-exhausted":     "all node tokens of this device were refused, {tried} of them",
    # update lock of a neighbour
    "acquired":             "{owner} holds an update lock for {ttl_s} s: {reason}",
    "renewed":              "its holder goes on holding it, for {ttl_s} s from now",
    "resumed":              "the host booted again: the rest of its time, {rest_s} s, counts from now",
    "released":             "ended: {reason}",
    "expired":              "ended: {reason}",
    "broken":               "{by} broke it: {reason}",
    # reboot
    "reboot-requested":     "{by} asked for a reboot",
    "reboot-postponed":     "{by} asked for a reboot, which waits: {reason}",
    "reboot-refused":       "not rebooted: {reason}",
    "rebooted":             "the host booted again",
    "reboot-failed":        "the reboot failed: {reason}",
}
# fmt: on


class _Values(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def said(kind: str, data: str) -> str:
    """`sentence` for a fact's text, whatever is in it, in one printable line."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return printable(f"its data cannot be read: {data}")
    try:
        return printable(sentence(kind, values))
    except (TypeError, ValueError, KeyError, AttributeError, IndexError):  # values of another shape
        return printable(values)


def sentence(kind: str, values: Mapping[str, Any]) -> str:
    """What happened, in words; the values alone for a fact that this agent has no sentence for."""
    template = SENTENCES.get(kind)
    if template is None:
        return ", ".join(f"{name}={value}" for name, value in values.items())
    shown = {name: "nothing" if value is None else value for name, value in values.items()}
    if kind == "epoch-began":
        kept_in = values.get("kept_in")
        shown["kept"] = f"; the files of the one before are in {kept_in}" if kept_in else ""
    if kind == "lines":
        shown["said"] = _lines_in_words(values)
    return template.format_map(_Values(shown))


def without_last_line(words: str) -> str:
    """A sentence about lines, to stand above them."""
    return words.partition(_THE_LAST)[0]


_THE_LAST = "; the last one: "


def _lines_in_words(values: Mapping[str, Any]) -> str:
    """How many lines of which log went along, and the last of them."""
    source, lines = values.get("source", "?"), list(values.get("lines", ()))
    why = f" ({values['why']})" if values.get("why") else ""
    if not lines:
        return f"no lines of the {source}'s log{why}"
    left_out = f", {values['omitted']} older ones left out" if values.get("omitted") else ""
    if len(lines) == 1:
        return f"one line of the {source}'s log{left_out}{why}: {lines[0]}"
    return f"the last {len(lines)} lines of the {source}'s log{left_out}{why}{_THE_LAST}{lines[-1]}"
