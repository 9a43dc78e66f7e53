"""What a person may choose, and what happens to anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomine_spawner.hub.options.errors import OptionsError, shorten
from cytomine_spawner.hub.options.notebook import (
    ImageChoice,
    Offer,
    SizeChoice,
    SpawnOptions,
    bytes_of,
    parse_form,
    parse_json,
    read_choices,
)
from tests.support.examples import examples
from tests.support.kube import IMAGES, SIZES


def offer(*groups: str) -> Offer:
    return Offer(
        read_choices(ImageChoice, IMAGES, "images"), read_choices(SizeChoice, SIZES, "sizes"), groups
    )


def test_what_is_left_out_becomes_the_default():
    assert parse_json({}, offer()) == SpawnOptions(image="gpu", size="small")
    assert parse_json({"size": "large"}, offer()) == SpawnOptions(image="gpu", size="large")
    assert parse_json({"image": None}, offer()) == SpawnOptions(image="gpu", size="small")


def test_the_form_and_the_api_give_the_same_options():
    form = {"image": ["standard"], "size": ["large"], "_xsrf": ["x"]}
    assert parse_form(form, offer()) == parse_json({"image": "standard", "size": "large"}, offer())


@pytest.mark.parametrize(
    ("raw", "field", "words"),
    [
        ({"image": "nope"}, "image", ["'image'", "'nope'", "standard, gpu"]),
        ({"size": "SMALL"}, "size", ["'size'", "'SMALL'", "small, large"]),
        ({"size": "huge"}, "size", ["'huge'", "Allowed: small, large."]),
        ({"size": 3}, "size", ["'size'", "text", "a number"]),
        ({"size": True}, "size", ["true or false"]),
        ({"size": ["small"]}, "size", ["a list"]),
        ({"image": {"name": "gpu"}}, "image", ["an object"]),
        ({"image": ""}, "image", ["''"]),
        ({"profile": "a"}, "'profile'", ["'profile'", "image, size"]),
        ({"image": "x" * 10_000}, "image", ["xxx..."]),
        ({"y" * 10_000: 1}, "'" + "y" * 56 + "...", ["yyy..."]),
        ([1], "options", ["a list"]),
        ("small", "options", ["not text"]),
        (7, "options", ["a number"]),
        (None, "options", ["null"]),
    ],
)
def test_wrong_options_are_refused_naming_field_value_and_what_is_allowed(raw, field, words):
    with pytest.raises(OptionsError) as caught:
        parse_json(raw, offer())
    assert caught.value.status_code == 400
    assert caught.value.field == field
    for word in words:
        assert word in caught.value.sentence
    assert len(caught.value.sentence) < 300


@pytest.mark.parametrize(
    "form",
    [
        {"image": ["gpu", "gpu"]},
        {"image": []},
        {"size": ["small"], "notes_file": [{"filename": "x", "body": b"x"}]},
        {"size": ["huge"]},
    ],
)
def test_a_wrong_form_is_refused_too(form):
    with pytest.raises(OptionsError):
        parse_form(form, offer())


def test_a_size_for_a_group_is_offered_to_its_members_only():
    assert parse_json({"size": "huge"}, offer("pathology")).size == "huge"
    with pytest.raises(OptionsError):
        parse_json({"size": "huge"}, offer("zoology"))


def test_the_default_falls_back_when_it_is_for_a_group_of_others():
    sizes = [{"name": "a"}, {"name": "b", "default": True, "groups": ["g"]}]
    made = read_choices(SizeChoice, sizes, "sizes")
    images = read_choices(ImageChoice, IMAGES, "images")
    assert parse_json({}, Offer(images, made)).size == "a"
    assert parse_json({}, Offer(images, made, ["g"])).size == "b"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("size"), inner, max_size=4)
    ),
    max_leaves=15,
)
ANYTHING = JSON | st.dictionaries(st.sampled_from(["image", "size", "Size", "cytomine"]), JSON)


def outcome(parse, raw) -> SpawnOptions | OptionsError:
    try:
        return parse(raw, offer())
    except OptionsError as error:
        return error


@given(ANYTHING)
@settings(max_examples=examples(400))
def test_whatever_json_arrives_gives_options_or_a_400_that_can_be_sent(raw):
    result = outcome(parse_json, raw)
    if isinstance(result, SpawnOptions):
        assert result.image in {"standard", "gpu"}
        assert result.size in {"small", "large"}
    else:
        assert result.status_code == 400
        # what JupyterHub does with it: its API and its pages
        assert json.dumps(result.log_message % result.args).encode()
        assert result.jupyterhub_message.encode("utf-8")


@given(st.dictionaries(st.text() | st.sampled_from(["image", "size"]), st.lists(st.text(), max_size=3)))
def test_whatever_form_arrives_gives_options_or_a_400(form):
    result = outcome(parse_form, form)
    assert isinstance(result, SpawnOptions) or result.status_code == 400


@pytest.mark.parametrize(
    ("entries", "place"),
    [
        ([{"name": "A b"}], "sizes[0].name"),
        ([{"name": "a"}, {"name": "b", "cpu_limit": -1}], "sizes[1].cpu_limit"),
        ([{"name": "a", "mem_limit": "2 cows"}], "sizes[0].mem_limit"),
        ([{"name": "a", "memory": "2G"}], "sizes[0].memory"),
        ([{"name": "a"}, {"name": "a"}], "'a' is used more than once"),
        ([{"name": "a", "default": True}, {"name": "b", "default": True}], "more than one entry has default"),
        ([{"name": "a", "groups": ["g"]}], "open to everybody"),
        (["small"], "sizes[0]"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(entries, place):
    with pytest.raises(ValueError, match="sizes") as caught:
        read_choices(SizeChoice, entries, "sizes")
    assert place in str(caught.value)


def test_an_image_needs_a_reference():
    with pytest.raises(ValueError, match=r"images\[0\]\.image"):
        read_choices(ImageChoice, [{"name": "a"}], "images")


def test_amounts_of_memory():
    assert [bytes_of(text) for text in ("512M", "2G", "1.5G", 1024)] == [2**29, 2**31, 3 * 2**29, 1024]
    for wrong in ("", "G", "-1G", "nan", "infG", "2GiB"):
        with pytest.raises(ValueError, match="amount of memory"):
            bytes_of(wrong)


def test_a_shown_value_is_short_and_ascii():
    assert shorten("ä" * 1000).isascii()
    assert len(shorten("ä" * 1000)) <= 60
