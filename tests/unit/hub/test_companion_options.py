"""Cytomine in the options: what may be chosen, what is refused, and what the form shows."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from traitlets.config import Config

from cytomine_spawner.hub.options.errors import Attempt, OptionsError
from cytomine_spawner.hub.options.form import render_form
from cytomine_spawner.hub.options.notebook import (
    ImageChoice,
    Offer,
    SizeChoice,
    parse_form,
    parse_json,
    read_choices,
)
from cytomine_spawner.hub.options.stack import CytomineChoice, offer_of, read_datasets, refused, settings_of
from cytomine_spawner.hub.options.stack_form import Standing, cytomine_block
from cytomine_spawner.stack.model import Phase
from tests.support.examples import examples
from tests.support.kube import IMAGES, SIZES
from tests.support.stacks import a_stack

DATASETS = read_datasets([{"name": "mock", "title": "Mock dataset"}])
STACKS = offer_of(settings_of(Config()), DATASETS)
NOBODY = refused("Cytomine is for members of the group pathology, and you are not one.")


def offer(cytomine=STACKS) -> Offer:
    images, sizes = (
        read_choices(ImageChoice, IMAGES, "images"),
        read_choices(SizeChoice, SIZES, "sizes"),
    )
    return Offer(images, sizes, (), cytomine)


def chosen(raw) -> CytomineChoice | None:
    return parse_json({"cytomine": raw}, offer()).cytomine


# The REST API


@pytest.mark.parametrize(
    ("raw", "choice"),
    [
        (None, None),
        (False, None),
        (True, CytomineChoice()),
        ({}, CytomineChoice()),
        ({"size": "M"}, CytomineChoice(size="M")),
        ({"size": None, "components": ["cbir", "sam"]}, CytomineChoice(components=["cbir", "sam"])),
        ({"components": [], "datasets": ["mock"]}, CytomineChoice(components=[], datasets=["mock"])),
    ],
)
def test_what_is_left_out_stays_open(raw, choice):
    assert chosen(raw) == choice


def test_what_is_stored_is_accepted_again():
    options = parse_json({"cytomine": {"size": "M", "components": ["cbir"]}}, offer())
    assert parse_json(json.loads(json.dumps(options.model_dump(exclude_none=True))), offer()) == options
    assert "cytomine" not in parse_json({}, offer()).model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("raw", "field", "words"),
    [
        ("yes", "cytomine", ["true, false or a JSON object", "text"]),
        (1, "cytomine", ["a number"]),
        ([], "cytomine", ["a list"]),
        ({"size": "XL"}, "cytomine.size", ["'cytomine.size'", "'XL'", "Allowed: S, M, L."]),
        ({"size": 3}, "cytomine.size", ["must be text", "a number"]),
        ({"size": ["S"]}, "cytomine.size", ["a list"]),
        ({"components": "cbir"}, "cytomine.components", ["a list of texts", "not text"]),
        ({"components": ["cbir", 3]}, "cytomine.components", ["one of its items is a number"]),
        ({"components": ["nope"]}, "cytomine.components", ["'nope'", "cbir, meilisearch, sam"]),
        ({"components": ["app-engine"]}, "cytomine.components", ["'app-engine' is not offered"]),
        ({"datasets": ["real"]}, "cytomine.datasets", ["'real'", "Allowed: mock."]),
        ({"color": "red"}, "cytomine.color", ["unknown", "cytomine.size"]),
        ({"size": "x" * 10_000}, "cytomine.size", ["xxx..."]),
    ],
)
def test_a_wrong_choice_is_refused_naming_the_field(raw, field, words):
    with pytest.raises(OptionsError) as caught:
        chosen(raw)
    assert caught.value.field == field
    assert caught.value.status_code == 400
    for word in words:
        assert word in caught.value.sentence
    assert len(caught.value.sentence) < 300


@pytest.mark.parametrize("cytomine", [None, NOBODY])
def test_who_may_not_have_a_stack_is_refused_and_may_still_say_no(cytomine):
    assert parse_json({"cytomine": False}, offer(cytomine)).cytomine is None
    with pytest.raises(OptionsError) as caught:
        parse_json({"cytomine": True}, offer(cytomine))
    assert caught.value.field == "cytomine"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["size", "components", "datasets"]), inner, max_size=3)
    ),
    max_leaves=10,
)


def outcome(raw) -> CytomineChoice | OptionsError | None:
    try:
        return chosen(raw)
    except OptionsError as error:
        return error


@given(JSON)
@settings(max_examples=examples(300))
def test_whatever_json_arrives_gives_a_choice_or_a_400(raw):
    result = outcome(raw)
    if isinstance(result, OptionsError):
        assert result.status_code == 400
        assert result.sentence.encode()
        assert json.dumps(result.log_message % result.args)
    else:
        assert result is None or result.size in {None, "S", "M", "L"}
    # and whatever the hub's database has kept, a form is shown
    block = cytomine_block(STACKS, Standing(), {"cytomine": raw}, None)
    assert render_form(offer(), {"cytomine": raw}, None, block)


# What an earlier start chose


@pytest.mark.parametrize(
    ("stored", "choice", "words"),
    [
        (None, None, []),
        (
            {"cytomine": {"size": "M", "components": ["cbir"]}},
            CytomineChoice(size="M", components=["cbir"]),
            [],
        ),
        (
            {"cytomine": {"size": "XL"}},
            CytomineChoice(size="S"),
            ["'XL' is no longer offered. Small is selected"],
        ),
        (
            {"cytomine": {"components": ["cbir", "ilastik"], "datasets": ["gone"]}},
            CytomineChoice(components=["cbir"], datasets=[]),
            ["Of the components of Cytomine, 'ilastik'", "Of the datasets of Cytomine, 'gone'"],
        ),
        ({"cytomine": "yes"}, CytomineChoice(), []),
        ({"colour": "red"}, None, ["'colour' are unknown"]),
    ],
)
def test_what_is_offered_no_more_gives_way_and_is_told(stored, choice, words):
    options, told = offer().nearest(stored)
    assert options.cytomine == choice
    assert len(told) == len(words)
    for sentence, word in zip(told, words, strict=True):
        assert word in sentence


@pytest.mark.parametrize(
    ("cytomine", "words"), [(None, "no Cytomine any more"), (NOBODY, "members of the group")]
)
def test_who_may_have_a_stack_no_more_gets_the_notebook_alone(cytomine, words):
    options, told = offer(cytomine).nearest({"size": "large", "cytomine": {"size": "M"}})
    assert (options.size, options.cytomine) == ("large", None)
    (sentence,) = told
    assert words in sentence


@given(JSON | st.dictionaries(st.sampled_from(["image", "size", "cytomine", "x"]), JSON))
@settings(max_examples=examples(300))
def test_whatever_the_database_holds_gives_options_that_can_be_used(stored):
    options, told = offer().nearest(stored)
    assert parse_json(options.model_dump(exclude_none=True), offer()) == options
    assert all(len(sentence) < 400 and sentence.encode() for sentence in told)


# The form


def test_the_form_and_the_api_give_the_same_options():
    form = {
        "cytomine": ["stack"],
        "cytomine_size": ["M"],
        "cytomine_components": ["cbir", "sam", ""],
        "cytomine_datasets": ["mock", ""],
    }
    raw = {"cytomine": {"size": "M", "components": ["cbir", "sam"], "datasets": ["mock"]}}
    assert parse_form(form, offer()) == parse_json(raw, offer())


def test_nothing_ticked_is_none_and_nothing_asked_is_as_it_was():
    ticked = parse_form({"cytomine": ["stack"], "cytomine_components": [""]}, offer()).cytomine
    assert ticked == CytomineChoice(components=[])
    assert parse_form({"cytomine": ["stack"]}, offer()).cytomine == CytomineChoice()


def test_no_cytomine_leaves_the_other_fields_alone():
    form = {"cytomine": ["none"], "cytomine_size": ["gone"], "cytomine_components": ["", "gone"]}
    assert parse_form(form, offer()).cytomine is None


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"cytomine": ["maybe"]}, "cytomine"),
        ({"cytomine_size": ["M"]}, "cytomine"),
        ({"cytomine": ["stack", "none"]}, "cytomine"),
        ({"cytomine": ["stack"], "cytomine_size": ["M", "S"]}, "cytomine.size"),
        ({"cytomine": ["stack"], "cytomine_components": ["x"]}, "cytomine.components"),
    ],
)
def test_a_wrong_form_is_refused_too(form, field):
    with pytest.raises(OptionsError) as caught:
        parse_form(form, offer())
    assert caught.value.field == field


def page(standing=None, previous=None, form=None, cytomine=STACKS) -> BeautifulSoup:
    attempt = None
    if form:
        with pytest.raises(OptionsError) as caught:
            parse_form(form, offer(cytomine))
        attempt = Attempt(form, caught.value)
    block = cytomine_block(cytomine, standing or Standing(), previous or {}, attempt)
    return BeautifulSoup(render_form(offer(cytomine), previous or {}, attempt, block), "html.parser")


def sent(soup) -> dict[str, list[str]]:
    """What a browser sends of the block."""
    found: dict[str, list[str]] = {}
    for field in soup.select("#option-cytomine input[checked], #option-cytomine input[type=hidden]"):
        found.setdefault(field["name"], []).append(field["value"])
    return found


def asleep(**changes):
    day = datetime(2026, 11, 1, 10, tzinfo=timezone.utc)
    usual = {"hibernated_at": day, "expires_at": day.replace(month=12), "size": "L", "extras": ("sam",)}
    return a_stack(phase=Phase.HIBERNATED, **{**usual, **changes})


PAGES = [
    {},
    {"standing": Standing(asleep(), left=2)},
    {"standing": Standing(a_stack())},
    {"standing": Standing(refusal="You may run one stack.", left=0)},
    {"standing": Standing(unknown="The cluster does not answer.")},
    {"cytomine": NOBODY},
    {"form": {"cytomine": ["stack"], "cytomine_size": ["XL"], "cytomine_components": ["", "sam"]}},
]


@pytest.mark.parametrize("what", PAGES, ids=range(len(PAGES)))
def test_every_control_has_a_label_and_every_reference_a_target(what):
    soup = page(**what)
    ids = [element["id"] for element in soup.select("[id]")]
    assert len(ids) == len(set(ids))
    for control in soup.select("input:not([type=hidden])"):
        assert len(soup.select(f"label[for='{control['id']}']")) == 1
    for element in soup.select("[aria-describedby]"):
        assert set(element["aria-describedby"].split()) <= set(ids)
    for group in soup.select("fieldset"):
        assert group.find(recursive=False).name == "legend"
        # Bootstrap's legend floats: what follows must be visible to end that
        assert group.find_all(recursive=False)[1].get("type") != "hidden"
    assert not soup.select("script")


def test_a_newcomer_gets_no_stack_unless_they_choose_one_and_sees_what_it_costs():
    soup = page(Standing(left=1))
    assert sent(soup)["cytomine"] == ["none"]
    assert sent(soup)["cytomine_size"] == ["S"]
    text = soup.select_one("#option-cytomine").get_text(" ", strip=True)
    assert "0.7 cores, 3.3 GiB of memory, 26 GiB of disk" in text
    assert "Small: 0.21 cores, 1.1 GiB of memory, 2 GiB of disk more" in text
    assert "There is room for one more stack now." in text
    assert "Mock dataset" in text


def test_the_form_as_it_is_shown_keeps_the_hibernated_stack_as_it_is():
    soup = page(Standing(asleep(), left=1), {"cytomine": {"size": "S", "components": ["cbir"]}})
    text = soup.select_one("#option-cytomine").get_text(" ", strip=True)
    assert "hibernates since 1 Nov 2026, 10:00 UTC" in text
    assert "kept until 1 Dec 2026, 10:00 UTC" in text
    assert "Resume my Cytomine" in text
    assert parse_form(sent(soup), offer()).cytomine == CytomineChoice(
        size="L", components=["sam"], datasets=[]
    )


def test_the_previous_choice_is_selected():
    soup = page(previous={"cytomine": {"size": "M", "components": ["cbir"], "datasets": ["mock"]}})
    wanted = CytomineChoice(size="M", components=["cbir"], datasets=["mock"])
    assert parse_form(sent(soup), offer()).cytomine == wanted
    assert sent(page(previous={"cytomine": True}))["cytomine"] == ["stack"]


@pytest.mark.parametrize(
    ("standing", "cytomine", "words"),
    [
        (Standing(), NOBODY, "members of the group pathology"),
        (Standing(refusal="You may run one stack at a time."), STACKS, "You may run one stack at a time."),
        (Standing(absent="Cytomine is not installed on this cluster."), STACKS, "not installed"),
    ],
)
def test_who_cannot_have_a_stack_reads_why_and_can_still_start(standing, cytomine, words):
    soup = page(standing, {"cytomine": True}, cytomine=cytomine)
    assert words in soup.select_one("#option-cytomine").get_text()
    assert sent(soup) == {}
    assert parse_form(sent(soup), offer(cytomine)).cytomine is None


def test_a_refused_form_comes_back_with_its_choices_and_the_message_at_the_field():
    form = {"cytomine": ["stack"], "cytomine_size": ["XL"], "cytomine_components": ["", "sam"]}
    soup = page(Standing(asleep(extras=("cbir",))), form=form)
    alert = soup.select_one("#option-cytomine [role=alert]")
    assert "'XL' is not offered" in alert.get_text()
    assert len(soup.select("[role=alert]")) == 1
    assert sent(soup)["cytomine"] == ["stack"]
    assert sent(soup)["cytomine_components"] == ["sam", ""]
    assert soup.select("input[name=cytomine_size][aria-invalid=true]")


def linked(link, **kwargs) -> BeautifulSoup:
    block = cytomine_block(STACKS, kwargs.get("standing", Standing()), kwargs.get("previous"), Attempt(link))
    return BeautifulSoup(render_form(offer(), kwargs.get("previous"), Attempt(link), block), "html.parser")


def test_a_link_wins_over_the_stack_as_it_is_in_what_it_names_alone():
    soup = linked({"cytomine": ["stack"], "cytomine_size": ["M"]}, standing=Standing(asleep()))
    assert parse_form(sent(soup), offer()).cytomine == CytomineChoice(
        size="M", components=["sam"], datasets=[]
    )
    soup = linked({"image": ["standard"]}, previous={"cytomine": {"size": "L", "components": ["cbir"]}})
    assert parse_form(sent(soup), offer()).cytomine == CytomineChoice(
        size="L", components=["cbir"], datasets=[]
    )
    assert sent(linked({"cytomine": ["none"]}, previous={"cytomine": {"size": "L"}}))["cytomine"] == ["none"]


def test_a_size_that_is_gone_is_told():
    soup = page(previous={"cytomine": {"size": "XXL"}})
    assert "'XXL' is no longer offered. Small is selected" in soup.select_one("[role=status]").get_text()


def test_a_failed_stack_says_why_and_offers_another_try():
    soup = page(Standing(a_stack(phase=Phase.FAILED, message="No node has room <b>.")))
    text = soup.select_one("#option-cytomine").get_text(" ", strip=True)
    assert "has failed: No node has room <b>." in text
    assert "Try my Cytomine again" in text


def test_without_cytomine_the_form_is_as_before():
    assert not BeautifulSoup(render_form(offer(None), {}), "html.parser").select("#option-cytomine")


# The settings


def test_the_settings_are_read_once_for_one_configuration():
    assert settings_of(Config(StackSettings={"max_stacks": 3})) is settings_of(
        Config(StackSettings={"max_stacks": 3})
    )
    assert settings_of(Config(StackSettings={"max_stacks": 4})).max_stacks == 4


def test_what_the_administrator_took_away_is_not_offered():
    config = Config(StackSettings={"sizes": {"S": None}, "allowed_components": ["cbir"]})
    made = offer_of(settings_of(config))
    assert [part.name for part in made.sizes] == ["M", "L"]
    assert made.default_size == "M"
    assert [part.name for part in made.components] == ["cbir"]


@pytest.mark.parametrize(
    ("entries", "place"),
    [
        ([{"title": "a"}], r"cytomine_datasets\[0\].name"),
        ([{"name": "a"}, {"name": "a"}], "'a' is used more than once"),
        ([{"name": "a", "size": 1}], r"cytomine_datasets\[0\].size"),
    ],
)
def test_a_wrong_dataset_is_named_with_its_place(entries, place):
    with pytest.raises(ValueError, match=place):
        read_datasets(entries)
