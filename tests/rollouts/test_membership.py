"""In which phase a node is: computed, the same everywhere, and nobody else's business."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from cloudly.rollouts.membership import first_phase, in_phase, is_selected, place
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.selector import NodeView

SALT = "5a17" * 8


def nodes(count: int) -> list[NodeView]:
    return [NodeView(node_id=f"node-{number}") for number in range(count)]


def test_a_place_is_the_hash_of_salt_and_id_in_basis_points() -> None:
    digest = hashlib.sha256(f"{SALT}/node-1".encode()).hexdigest()

    assert place(SALT, "node-1") == int(digest, 16) % 10_000


def test_shares_are_about_as_large_as_they_say() -> None:
    fleet = nodes(20_000)
    plan = Plan()

    sizes = [sum(in_phase(plan, phase, node, SALT) for node in fleet) for phase in range(4)]

    assert 150 <= sizes[0] <= 250
    assert 1850 <= sizes[1] <= 2150
    assert 9700 <= sizes[2] <= 10_300
    assert sizes[3] == 20_000


@given(
    st.text(alphabet="abcdef0123456789", min_size=1, max_size=32), st.text(min_size=1, max_size=64)
)
def test_a_node_of_one_phase_is_in_every_later_one(salt: str, node_id: str) -> None:
    plan = Plan(
        phases=(
            Phase(name="lab", selector="label.site=lab"),
            *Plan().phases,
        )
    )
    labels = {"site": "lab"} if len(node_id) % 2 else {}
    node = NodeView(node_id=node_id, labels=labels)

    member = [in_phase(plan, phase, node, salt) for phase in range(5)]

    assert member == sorted(member)
    assert member[-1]
    first = first_phase(plan, node, salt)
    assert first == member.index(True)
    assert not labels or first == 0


def test_another_salt_is_another_canary() -> None:
    canaries = [
        {node.node_id for node in nodes(5000) if place(salt, node.node_id) < 100}
        for salt in ("a" * 32, "b" * 32)
    ]

    assert all(canaries)
    assert len(canaries[0] & canaries[1]) < len(canaries[0]) / 2


def test_a_count_phase_takes_anybody_and_says_of_nobody_that_it_is_theirs() -> None:
    plan = Plan(phases=(Phase(name="ten", count=10), Phase(name="half", share_bp=5000)))
    fleet = nodes(100)

    assert all(in_phase(plan, 0, node, SALT) for node in fleet)
    firsts = {first_phase(plan, node, SALT) for node in fleet}
    assert firsts == {1, None}


def test_who_is_selected_is_the_plans_selector() -> None:
    plan = Plan(selector="label.site=lab")

    assert is_selected(plan, NodeView(node_id="a", labels={"site": "lab"}))
    assert not is_selected(plan, NodeView(node_id="a"))
