"""In which phase a node is: computed from the rollout's salt and the node's id, never stored.

Rules:
- A node's place is `sha256(salt / node id) mod 10000`, in basis points: the node's for this rollout, the same in every
  process, and unrelated to its place in another rollout. So no node is always the canary.
- A phase of 10 % takes the places below 1000, one of 50 % those below 5000: a node of an earlier phase is in every
  later one, and a node that joins, leaves, moves or comes back changes nobody else's place.
- Selector phases come first, and their nodes too are in every later phase. A count phase takes whoever comes first; it
  is a bound on grants and says nothing of who.
- "At least": a share phase whose nodes by place are all there and fewer than `at_least` of them have succeeded is
  widened (`engine`): a node of any place may come, and another if that one fails, as long as the evidence allows. So
  1 % of 20 nodes is a node.

Making a rollout is therefore O(1), and so is the question about one node.

Source: server note, section 7; the same idea is systemd's for phased updates, a hash of machine id and version.
"""

from __future__ import annotations

import hashlib

from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.selector import NodeView, parse

PLACES = 10_000
"""Places are basis points: the finest phase is a hundredth of a percent."""


def place(salt: str, node_id: str) -> int:
    """0..9999. Neither a salt nor a node id contains a slash, so no two pairs are hashed as the same text."""
    digest = hashlib.sha256(f"{salt}/{node_id}".encode()).digest()
    return int.from_bytes(digest, "big") % PLACES


def is_selected(plan: Plan, node: NodeView) -> bool:
    return parse(plan.selector).matches(node)


def in_phase(plan: Plan, phase: int, node: NodeView, salt: str) -> bool:
    """Whether a selected node is of this phase by rule: of its own, or of an earlier one. `phase` counts from 0.

    In a count phase everybody is, within its bound; the bound and `at_least` are `admission`'s.
    """
    here = plan.phases[phase]
    if here.count is not None:
        return True
    if here.share_bp is not None and place(salt, node.node_id) < here.share_bp:
        return True
    return any(_picks(earlier, node) for earlier in plan.phases[: phase + 1])


def first_phase(plan: Plan, node: NodeView, salt: str) -> int | None:
    """The first phase that takes this node by selector or place, not as one of a count; None: none does."""
    for number, phase in enumerate(plan.phases):
        if _picks(phase, node):
            return number
        if phase.share_bp is not None and place(salt, node.node_id) < phase.share_bp:
            return number
    return None


def _picks(phase: Phase, node: NodeView) -> bool:
    return phase.selector is not None and parse(phase.selector).matches(node)
