"""The options form, as a browser and a screen reader see it."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from cytomine_spawner.hub.options.errors import Attempt, OptionsError
from cytomine_spawner.hub.options.form import render_form
from cytomine_spawner.hub.options.notebook import ImageChoice, Offer, SizeChoice, parse_form, read_choices
from tests.support.kube import IMAGES, SIZES


def offer(*groups: str, images=IMAGES) -> Offer:
    return Offer(
        read_choices(ImageChoice, images, "images"), read_choices(SizeChoice, SIZES, "sizes"), groups
    )


def page(previous=None, attempt=None, **kwargs) -> BeautifulSoup:
    return BeautifulSoup(render_form(offer(**kwargs), previous or {}, attempt), "html.parser")


def selected(soup: BeautifulSoup) -> dict[str, str]:
    return {field["name"]: field["value"] for field in soup.select("input[checked]")}


def refused(form) -> Attempt:
    with pytest.raises(OptionsError) as caught:
        parse_form(form, offer())
    return Attempt(form, caught.value)


def test_every_control_has_a_label_and_every_reference_a_target():
    for soup in (page(), page({"image": "gone"}), page(attempt=refused({"size": ["x"]}))):
        ids = [element["id"] for element in soup.select("[id]")]
        assert len(ids) == len(set(ids))
        for control in soup.select("input:not([type=hidden])"):
            assert len(soup.select(f"label[for='{control['id']}']")) == 1
        for element in soup.select("[aria-describedby]"):
            assert set(element["aria-describedby"].split()) <= set(ids)
        for group in soup.select("fieldset"):
            assert group.legend.get_text(strip=True)


def test_the_defaults_are_selected_for_a_newcomer():
    assert selected(page()) == {"image": "gpu", "size": "small"}


def test_the_previous_choice_is_selected():
    assert selected(page({"image": "standard", "size": "large"})) == {"image": "standard", "size": "large"}


def test_a_previous_choice_that_is_gone_becomes_the_default_and_the_form_says_so():
    soup = page({"image": "retired", "size": "large"})
    assert selected(soup) == {"image": "gpu", "size": "large"}
    notice = soup.select_one("#option-image [role=status]").get_text()
    assert "'retired'" in notice
    assert "With GPU" in notice
    assert not soup.select("#option-size [role=status]")


@pytest.mark.parametrize("previous", [None, [1], "x", {"image": ["gpu"]}, {"size": {"a": 1}}, {"other": 1}])
def test_whatever_the_database_holds_a_form_is_shown(previous):
    assert set(selected(page(previous))) == {"image", "size"}


def test_a_refused_form_comes_back_with_its_choices_and_the_message_at_the_field():
    soup = page({"image": "gpu", "size": "small"}, refused({"image": ["standard"], "size": ["enormous"]}))
    assert selected(soup)["image"] == "standard"
    alert = soup.select_one("#option-size [role=alert]")
    assert "'enormous' is not offered" in alert.get_text()
    for control in soup.select("input[name=size]"):
        assert control["aria-invalid"] == "true"
        assert alert["id"] in control.find_parent("fieldset")["aria-describedby"].split()
    assert not soup.select("#option-image [role=alert]")
    assert not soup.select("input[name=image][aria-invalid]")


def test_a_message_about_no_field_of_the_form_stands_on_top():
    soup = page(attempt=refused({"image": ["standard"], "colour": ["red"]}))
    assert "'colour' is unknown" in soup.select_one("[role=alert]").get_text()
    assert selected(soup)["image"] == "standard"


def test_sizes_tell_their_cores_and_memory():
    text = page().select_one("#option-size").get_text(" ", strip=True)
    assert "1 core, 2 GiB of memory" in text
    assert "4 cores, 8 GiB of memory" in text


def test_a_size_for_a_group_is_shown_to_its_members_only():
    def names(soup):
        return [control["value"] for control in soup.select("input[name=size]")]

    assert names(page()) == ["small", "large"]
    everything = BeautifulSoup(render_form(offer("pathology"), {}), "html.parser")
    assert names(everything) == ["small", "large", "huge"]


def test_a_single_image_is_stated_and_not_asked():
    soup = page(images=IMAGES[:1])
    only = soup.select("input[name=image]")
    assert [(control["type"], control["value"]) for control in only] == [("hidden", "standard")]
    assert "Standard" in soup.select_one("#option-image").get_text()


def test_nothing_that_is_configured_or_sent_becomes_markup():
    evil = "<script>alert(1)</script>"
    images = [
        {"name": "a", "display_name": evil, "description": evil, "image": "a"},
        {"name": "b", "image": "b"},
    ]
    soup = page({"image": evil}, refused({"size": [evil]}), images=images)
    assert not soup.select("script")
    assert not page({"image": evil, "size": evil}).select("script")
