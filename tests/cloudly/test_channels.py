"""Channels and approvals: what is published, by whose yes, and what never is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudly.governance.approvals import State
from cloudly.problems import BadOrder
from cloudly.store.audit import By
from cloudly.store.governance import approving, channels
from tests.cloudly.given import Plane
from tests.cloudly.governing import Operator

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


@pytest.fixture
def anna(plane: Plane) -> Operator:
    anna = Operator(plane)
    anna.defines("1.0.0", "1.1.0", "2.0.0")
    return anna


async def test_where_no_yes_is_needed_a_proposal_is_published_at_once(anna: Operator) -> None:
    anna.makes_channel()

    done = anna.proposes("1.0.0", note="the first")

    assert done.proposal.state is State.PUBLISHED
    assert (anna.offers(), done.note, done.seq) == ("1.0.0", "the first", 1)


async def test_the_yes_that_was_missing_publishes(anna: Operator) -> None:
    anna.makes_channel(approvals=2)
    proposed = anna.proposes("1.0.0")

    once = anna.approves("1.0.0")
    offered = anna.offers()
    twice = anna.known_as("ben").approves("1.0.0", note="seen in the lab")

    assert (proposed.proposal.state, once.proposal.state) == (State.PROPOSED, State.PROPOSED)
    assert offered is None
    assert twice.proposal.state is State.PUBLISHED
    assert [(one.who, one.decision, one.note) for one in twice.said] == [
        ("anna", "approved", ""),
        ("ben", "approved", "seen in the lab"),
    ]


async def test_the_yes_of_who_proposed_it_counts_only_where_no_second_person_is_wanted(
    anna: Operator,
) -> None:
    anna.makes_channel("easy", approvals=1)
    anna.makes_channel("strict", second_person=True)
    anna.proposes("1.0.0", "easy")
    anna.proposes("1.0.0", "strict")

    easy, strict = anna.approves("1.0.0", "easy"), anna.approves("1.0.0", "strict")
    by_ben = anna.known_as("ben").approves("1.0.0", "strict")

    assert (easy.proposal.state, strict.proposal.state) == (State.PUBLISHED, State.PROPOSED)
    assert by_ben.proposal.state is State.PUBLISHED


@pytest.mark.parametrize("name", ["ANNA", "  anna ", "\uff41nna"])
async def test_another_spelling_is_no_second_person(anna: Operator, name: str) -> None:
    from cloudly.governance.people import person

    anna.makes_channel(second_person=True)
    anna.proposes("1.0.0")

    done = anna.known_as(person(name)).approves("1.0.0")

    assert done.proposal.state is State.PROPOSED


async def test_one_person_has_one_word(anna: Operator) -> None:
    anna.makes_channel(approvals=2)
    anna.proposes("1.0.0")

    anna.approves("1.0.0")
    done = anna.known_as("Anna").approves("1.0.0", note="again")

    assert done.proposal.state is State.PROPOSED
    assert [(one.who, one.note) for one in done.said] == [("anna", "again")]


async def test_a_refusal_blocks_until_the_same_person_says_otherwise(anna: Operator) -> None:
    ben, cleo = anna.known_as("ben"), anna.known_as("cleo")
    anna.makes_channel(approvals=1)
    anna.proposes("1.0.0")
    cleo.refuses("1.0.0", note="it eats flash")

    despite = ben.approves("1.0.0")
    with pytest.raises(BadOrder, match="it was refused by cleo, who may take that back"):
        ben.publishes("1.0.0")
    with pytest.raises(BadOrder, match=r"dora has said nothing about 1.0.0 in stable"):
        anna.known_as("dora").takes_back("1.0.0")
    then = cleo.takes_back("1.0.0")

    assert despite.proposal.state is State.REFUSED
    assert then.proposal.state is State.PUBLISHED
    assert ("cleo", "channel.refused", "channel/stable") in anna.audited()


async def test_who_refused_may_approve_instead(anna: Operator) -> None:
    anna.makes_channel(approvals=1)
    anna.proposes("1.0.0")
    anna.refuses("1.0.0")

    assert anna.approves("1.0.0").proposal.state is State.PUBLISHED


async def test_no_word_changes_what_is_published(anna: Operator) -> None:
    anna.makes_channel(approvals=1)
    anna.proposes("1.0.0")
    anna.approves("1.0.0")

    for change in (anna.refuses, anna.approves, anna.takes_back, anna.publishes):
        with pytest.raises(BadOrder, match=r"it is published there.*`cloudly channel withdraw"):
            change("1.0.0")

    assert anna.offers() == "1.0.0"


async def test_order_is_that_of_proposals_and_not_of_versions_or_of_yeses(anna: Operator) -> None:
    anna.makes_channel(approvals=1)
    for version in ("2.0.0", "1.0.0", "1.1.0"):
        anna.proposes(version)

    anna.approves("1.1.0")
    newest = anna.offers()
    anna.approves("2.0.0")

    assert (newest, anna.offers()) == ("1.1.0", "1.1.0")


async def test_what_is_withdrawn_is_not_offered_and_never_comes_back(anna: Operator) -> None:
    anna.makes_channel()
    anna.proposes("1.0.0")
    anna.proposes("2.0.0")

    gone = anna.withdraws("2.0.0", why="it eats flash")

    assert (gone.withdrawn_by, gone.withdrawn_why) == ("anna", "it eats flash")
    assert anna.offers() == "1.0.0"
    for change, says in (
        (anna.proposes, "already: it is withdrawn, which is final there"),
        (anna.approves, "was withdrawn there, which is final"),
        (anna.publishes, "was withdrawn there, which is final"),
        (anna.withdraws, r"anna withdrew it already \(it eats flash\)"),
    ):
        with pytest.raises(BadOrder, match=says):
            change("2.0.0")


async def test_a_withdrawn_proposal_is_published_by_no_later_yes(anna: Operator) -> None:
    anna.makes_channel(approvals=1)
    anna.proposes("1.0.0")
    anna.withdraws("1.0.0")

    with pytest.raises(BadOrder, match="final"):
        anna.known_as("ben").approves("1.0.0")

    assert anna.offers() is None


async def test_what_is_banned_is_neither_proposed_nor_approved_nor_published(
    anna: Operator,
) -> None:
    anna.makes_channel(approvals=1)
    anna.proposes("1.0.0")
    anna.known_as("cleo").refuses("1.0.0")
    anna.approves("1.0.0")
    anna.bans("1.0.0")
    anna.bans("2.0.0")

    for change, version in ((anna.proposes, "2.0.0"), (anna.approves, "1.0.0")):
        with pytest.raises(BadOrder, match=r"is banned by anna \(it eats flash\)"):
            change(version)
    held = anna.known_as("cleo").takes_back("1.0.0")
    with pytest.raises(BadOrder, match="is banned"):
        anna.publishes("1.0.0")
    anna.unbans("1.0.0")

    assert held.proposal.state is State.PROPOSED
    assert anna.publishes("1.0.0").proposal.state is State.PUBLISHED


async def test_a_ban_takes_a_published_release_out_of_the_offer(anna: Operator) -> None:
    anna.makes_channel()
    anna.proposes("1.0.0")
    anna.proposes("1.1.0")

    reach = anna.bans("1.1.0")

    assert (reach.channels, anna.offers()) == (("stable",), "1.0.0")


async def test_every_refusal_has_its_reason(anna: Operator) -> None:
    anna.makes_channel(approvals=1)
    anna.proposes("1.0.0")

    for change, says in (
        (lambda: anna.makes_channel("stable"), "there is a channel 'stable' already"),
        (lambda: anna.makes_channel("no name"), "is no name of a channel"),
        (lambda: anna.makes_channel("x", approvals=-1), "from 0 to 20"),
        (lambda: anna.makes_channel("x", approvals=21), "from 0 to 20"),
        (lambda: anna.makes_channel("x", approvals=0, second_person=True), "leave one of them out"),
        (lambda: anna.proposes("1.0.0"), "is in channel stable already: it is proposed"),
        (lambda: anna.proposes("1.0.0", "beta"), "there is no channel 'beta'"),
        (lambda: anna.proposes("9"), "there is no release '9'"),
        (lambda: anna.proposes("2.0.0", note="x" * 501), "501 characters long"),
        (lambda: anna.proposes("2.0.0", note="a\x1b[31m"), "characters that nobody sees"),
        (lambda: anna.approves("1.1.0"), "not in channel stable: `cloudly channel propose"),
        (lambda: anna.refuses("1.0.0", note=" "), "say why, with --note"),
        (lambda: anna.withdraws("1.0.0", why=" "), "say why, with --reason"),
        (lambda: anna.publishes("1.0.0"), "waits for the yes of 1 more person"),
        (lambda: anna.floors("1.0.0", on=False), "is no floor of stable already"),
    ):
        with pytest.raises(BadOrder, match=says):
            change()

    assert anna.audited() == [
        ("anna", "channel.created", "channel/stable"),
        ("anna", "channel.proposed", "channel/stable"),
    ]


async def test_a_webhook_is_told_what_people_do(anna: Operator) -> None:
    anna.do(
        lambda db: (
            db.execute(
                "INSERT INTO webhook(name, url, kinds, created_at_ms, disabled_why) VALUES('a','https://a','[]',1,'')"
            ).rowcount
        )
    )

    anna.makes_channel()
    anna.proposes("1.0.0")
    anna.bans("1.0.0")

    told = [(row["kind"], json.loads(row["data"])["by"]) for row in anna.plane.rows("outbox")]
    assert told == [
        ("channel.created", "anna"),
        ("channel.proposed", "anna"),
        ("channel.published", "anna"),
        ("release.banned", "anna"),
    ]


# -- whatever people say, in whatever order


@dataclass
class Oracle:
    """What may be published, counted in another way than the rules count it."""

    needed: int
    second_person: bool
    proposer: str = ""
    words: dict[str, str] = field(default_factory=dict)
    published: bool = False
    withdrawn: bool = False

    def hears(self, act: str, who: str) -> None:
        """What the act may have changed, if it was taken."""
        if act == "withdraw":
            self.withdrawn = True
        elif act == "take_back":
            self.words.pop(who.lower(), None)
        else:
            self.words[who.lower()] = act

    @property
    def may_be_published(self) -> bool:
        yes = {who for who, word in self.words.items() if word == "approve"}
        if self.second_person:
            yes -= {self.proposer.lower()}
        return len(yes) >= self.needed and "refuse" not in self.words.values()


ACTS = ("approve", "refuse", "take_back", "withdraw", "publish")
PEOPLE = ("anna", "Anna", "ben", "BEN", "cleo", "dora")
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTS[:3] * 3 + ACTS[3:]), st.sampled_from(PEOPLE)), max_size=14
)


def says(db: object, channel: object, release: int, act: str, who: str) -> None:
    by = By(who, 5)
    orders: dict[str, Callable[[], object]] = {
        "approve": lambda: approving.approve(db, channel, release, by),  # type: ignore[arg-type]
        "refuse": lambda: approving.refuse(db, channel, release, by, note="no"),  # type: ignore[arg-type]
        "take_back": lambda: approving.take_back(db, channel, release, by),  # type: ignore[arg-type]
        "withdraw": lambda: channels.withdraw(db, channel, release, by, "no"),  # type: ignore[arg-type]
        "publish": lambda: channels.publish(db, channel, release, by),  # type: ignore[arg-type]
    }
    orders[act]()


async def test_no_sequence_of_words_publishes_without_enough_yes_of_enough_persons(
    anna: Operator, engine: str
) -> None:
    release, names = anna.release("1.0.0"), iter(range(10_000))
    published: list[bool] = []

    @settings(
        max_examples=40 if engine == "postgresql" else 150,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(needed=st.integers(0, 3), second=st.booleans(), who=st.sampled_from(PEOPLE), steps=STEPS)
    def story(needed: int, second: bool, who: str, steps: list[tuple[str, str]]) -> None:  # noqa: FBT001 - drawn
        needed = max(needed, int(second))
        name, oracle = f"c{next(names)}", Oracle(needed, second, who)
        anna.makes_channel(name, approvals=needed, second_person=second)
        entry = anna.known_as(who).proposes("1.0.0", name)
        assert entry.proposal.published is oracle.may_be_published
        oracle.published = entry.proposal.published
        for act, speaker in steps:
            oracle = tell(name, oracle, act, speaker)
        published.append(oracle.published)

    def tell(name: str, oracle: Oracle, act: str, speaker: str) -> Oracle:
        ended = oracle.published or oracle.withdrawn
        try:
            anna.do(lambda db: says(db, channels.find(db, name), release, act, speaker))
        except BadOrder:
            taken = False
        else:
            taken = True
            oracle.hears(act, speaker) if act != "publish" else None
        assert not (taken and ended and act != "withdraw")
        here = anna.do(lambda db: channels.entry(db, channels.find(db, name), release)).proposal
        due = not oracle.withdrawn and oracle.may_be_published
        assert here.published is (oracle.published or due)
        assert here.withdrawn is oracle.withdrawn
        oracle.published = here.published
        return oracle

    story()

    assert {True, False} == set(published)  # both ends were reached, or nothing was tried
