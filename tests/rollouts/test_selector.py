"""Selectors: what they match, how they are written, and where they are wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudly import labels
from cloudly.problems import BadOrder
from cloudly.rollouts.selector import BadSelector, NodeView, Selector, Term, parse
from cloudly.rollouts.versions import order

LAB = NodeView(
    node_id="n1",
    fleet="berlin",
    labels={"site": "lab", "rack": "7"},
    device_type="raspberrypi4-64",
    version="1.4.0",
    agent_version="0.9.1",
    state="idle",
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "label.site=lab",
        "label.site = lab | office , fleet=berlin",
        "label.site",
        "!label.canary",
        "label.site!=office|home",
        "label.canary!=yes",
        "device-type=raspberrypi4-64|intel-nuc",
        "version=1.4.0",
        "version>=1.4",
        "version<1.10",
        "version>1.4.0-rc.2",
        "agent-version<1,agent-version>=0.9.1",
        "state=idle|failed",
        "node=n1|n2",
    ],
)
def test_a_node_that_fits_is_selected(text: str) -> None:
    assert parse(text).matches(LAB)


@pytest.mark.parametrize(
    "text",
    [
        "label.site=office",
        "label.canary",
        "!label.site",
        "label.site!=lab",
        "label.site=lab,fleet=paris",
        "device-type=intel-nuc",
        "version<1.4.0",
        "version>1.4",
        "version=1.4",
        "state!=idle",
        "node!=n1",
    ],
)
def test_a_node_that_does_not_fit_is_not(text: str) -> None:
    assert not parse(text).matches(LAB)


def test_a_version_without_order_is_in_no_range_but_can_be_named() -> None:
    odd = NodeView(node_id="n2", version="lab-build")

    assert not parse("version<9").matches(odd)
    assert not parse("version>=0").matches(odd)
    assert parse("version=lab-build").matches(odd)


def test_versions_are_ordered_as_people_expect() -> None:
    ordered = [
        "0.9",
        "1.0.0-2.x",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0",
        "1.0.1",
        "1.2",
        "1.10",
        "v2",
        "2.0.1+lab",
    ]

    keys = [order(version) for version in ordered]

    assert None not in keys
    assert keys == sorted(keys)  # type: ignore[type-var]
    assert len(set(keys)) == len(keys)
    assert order("1.4") == order("v1.4.0+build.7")
    assert order("") is order("1..2") is order("1.4.x") is None


@pytest.mark.parametrize(
    ("text", "column", "about"),
    [
        ("site=lab", 1, "'site' is nothing to select by"),
        ("fleet=berlin,labl.site=x", 14, "'labl.site'"),
        ("fleet", 6, "compared with nothing"),
        ("fleet=", 7, "a value is missing"),
        ("fleet=a|", 9, "a value is missing"),
        ("fleet=a b", 9, "'b' cannot stand after a value"),
        ("fleet=a,,state=idle", 9, "a condition is missing"),
        ("state>idle", 6, "has no order"),
        ("version<1|2", 11, "takes one version"),
        ("version<new", 9, "'new' has no order"),
        ("!fleet=a", 7, "write !label.key alone"),
        ("!label.a=b", 9, "write !label.key alone"),
        ("label.=x", 1, "nothing to select by"),
        ("label.Site=x", 1, "nothing to select by"),
        ("fleet=a,label." + "k" * 64, 9, "nothing to select by"),
        ('label.site="a', 12, "a value is missing"),
        ('label.site="a"b', 15, "'b' cannot stand after a value"),
        ('label.site="a\tb"', 12, "no label has such a value"),
        ("label.site=" + "v" * 101, 12, "no label has such a value"),
    ],
)
def test_an_error_names_the_place(text: str, column: int, about: str) -> None:
    with pytest.raises(BadSelector) as caught:
        parse(text)

    assert caught.value.column == column
    assert f"column {column}" in str(caught.value)
    assert about in str(caught.value)
    assert isinstance(caught.value, BadOrder)


def test_too_much_is_refused() -> None:
    with pytest.raises(BadSelector, match="too long"):
        parse("fleet=" + "a" * 3000)
    with pytest.raises(BadSelector, match="too many values"):
        parse("node=" + "|".join(str(number) for number in range(101)))


@given(
    key=st.from_regex(labels.KEY, fullmatch=True),
    value=st.text(st.characters(codec="utf-8"), max_size=labels.MOST_CHARACTERS).filter(
        str.isprintable
    ),
)
def test_every_label_that_a_node_can_have_can_be_selected_and_no_other(
    key: str, value: str
) -> None:
    (term,) = Selector((Term(f"label.{key}", "=", (value,)),)).terms

    selector = parse(str(term))

    assert selector.terms == (term,)
    assert selector.matches(NodeView(node_id="n1", labels=labels.changed({}, [f"{key}={value}"])))
    assert not selector.matches(NodeView(node_id="n1", labels={key: value + "x"}))


@given(st.text(alphabet="aZ09._-/ ä", max_size=5))
def test_a_key_is_selected_by_exactly_when_a_node_can_have_it(key: str) -> None:
    try:
        selectable = parse(f"label.{key}").terms[0].key == f"label.{key}"
    except BadSelector:
        selectable = False

    assert selectable == labels.is_key(key)


value = st.text(alphabet="abcXYZ019._/-+*", min_size=1, max_size=8)
term = st.one_of(
    st.builds("{}{}{}".format, st.sampled_from(["fleet", "label.site", "version", "state"]),
              st.sampled_from(["=", "!=", " = "]), st.lists(value, min_size=1, max_size=3).map("|".join)),
    st.sampled_from(["label.site", "!label.a.b", 'label.site="a, \\\\"|""', "version<1.4", "agent-version >= v2-rc.1"]),
)  # fmt: skip


@given(st.lists(term, max_size=4).map(" , ".join))
def test_its_one_spelling_means_the_same(text: str) -> None:
    selector = parse(text)

    again = parse(str(selector))

    assert again == selector
    assert str(again) == str(selector)


@given(st.text(max_size=60))
def test_any_text_is_a_selector_or_a_bad_one(text: str) -> None:
    try:
        selector = parse(text)
    except BadSelector as error:
        assert 1 <= error.column <= len(text) + 1  # noqa: PT017
    else:
        assert parse(str(selector)) == selector
