"""Who may do what: roles, and the permissions that each one has. Pure, and the only such table.

Rules:
- A route or a command names the permission that it needs, never a role.
- Who approves gives no orders and who gives orders approves nothing: two persons, until an admin is both.
- What may hold a customer's secret (the environment of a release) is a permission of its own.
- How many must agree to a release, and which fleets that binds, is said by who gives no orders by it: an admin.
"""

from __future__ import annotations

from enum import StrEnum


class Permission(StrEnum):
    API_READ = "api:read"
    SUMMARY_READ = "summary:read"
    NODES_READ = "nodes:read"
    NODES_ORDER = "nodes:order"
    """Ask one for a diagnosis or another node token, put it into another fleet or into quarantine, label it."""
    NODES_REVOKE = "nodes:revoke"
    """Refuse one, for a time or for good, and take that back."""
    JOURNALS_READ = "journals:read"
    FLEETS_READ = "fleets:read"
    FLEETS_WRITE = "fleets:write"
    JOIN_TOKENS_READ = "join-tokens:read"
    JOIN_TOKENS_WRITE = "join-tokens:write"
    RELEASES_READ = "releases:read"
    RELEASES_CONTENTS = "releases:contents"
    """Its compose file, environment and labels, where people keep what they should not."""
    RELEASES_WRITE = "releases:write"
    RELEASES_SET = "releases:set"
    """Make one the desired state of nodes."""
    RELEASES_APPROVE = "releases:approve"
    """Say yes or no to one that a channel was proposed."""
    ROLLOUTS_READ = "rollouts:read"
    """Also a dry run, which changes nothing."""
    ROLLOUTS_WRITE = "rollouts:write"
    """Plan one, start, pause, resume, halt, roll back, abort it."""
    ROLLOUTS_APPROVE = "rollouts:approve"
    """Say yes or no to one, or to a phase of it."""
    CHANNELS_READ = "channels:read"
    CHANNELS_WRITE = "channels:write"
    """Make or remove one; propose, publish and withdraw releases; say what is a floor."""
    CHANNELS_GOVERN = "channels:govern"
    """Change how many must agree in one, and which fleets follow it."""
    PINS_READ = "pins:read"
    PINS_WRITE = "pins:write"
    BANS_READ = "bans:read"
    BANS_WRITE = "bans:write"
    PUBLISHERS_READ = "publishers:read"
    PUBLISHERS_WRITE = "publishers:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    """What happens here leaves the house by them; their whole addresses may be secrets."""
    AUDIT_READ = "audit:read"
    API_TOKENS_READ = "api-tokens:read"
    API_TOKENS_WRITE = "api-tokens:write"


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


P = Permission
VIEWER = frozenset({
    P.API_READ, P.SUMMARY_READ, P.NODES_READ, P.JOURNALS_READ, P.FLEETS_READ, P.JOIN_TOKENS_READ, P.RELEASES_READ,
    P.PUBLISHERS_READ, P.ROLLOUTS_READ, P.CHANNELS_READ, P.PINS_READ, P.BANS_READ, P.WEBHOOKS_READ, P.AUDIT_READ,
})  # fmt: skip

# fmt: off
GRANTED: dict[Role, frozenset[Permission]] = {
    Role.VIEWER:   VIEWER,
    Role.OPERATOR: VIEWER | {P.NODES_ORDER, P.NODES_REVOKE, P.FLEETS_WRITE, P.JOIN_TOKENS_WRITE,
                             P.RELEASES_CONTENTS, P.RELEASES_WRITE, P.RELEASES_SET,
                             P.ROLLOUTS_WRITE, P.CHANNELS_WRITE, P.PINS_WRITE, P.BANS_WRITE},
    Role.APPROVER: VIEWER | {P.RELEASES_CONTENTS, P.RELEASES_APPROVE, P.ROLLOUTS_APPROVE},
    Role.ADMIN:    frozenset(Permission),
}
# fmt: on


def may(role: Role, permission: Permission) -> bool:
    return permission in GRANTED[role]
