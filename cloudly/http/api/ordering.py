"""An order to run a release, as the API takes it for a node or a fleet."""

from __future__ import annotations

from pydantic import ConfigDict

from cloudly.http.api.call import Call
from cloudly.http.api.paging import Asked
from cloudly.http.api.texts import ReleaseName
from cloudly.service.orders import Ask
from interfaces.desired import UpdatePolicy


class PolicyAsked(UpdatePolicy):
    """How a node is to carry it out; what is left out has its default."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SetAsked(Asked):
    release: ReleaseName
    """Its commit, the beginning of it, or its version."""
    again: bool = False
    """Even if it is set already, or needed a rollback there."""
    policy: PolicyAsked = PolicyAsked()


def ask_of(call: Call, asked: SetAsked) -> Ask:
    """The order as it is given: in the name of who asks."""
    return Ask(asked.release, asked.policy, asked.again, call.by, call.new_id)
