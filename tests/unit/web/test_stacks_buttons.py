"""The buttons of the page of the stacks and its deletion, as a browser without scripts presses them."""

from __future__ import annotations

import httpx
import pytest

from cytomine_spawner.stack.model import Phase
from tests.support.stackpages import ADA, cards, press, send, soup, text
from tests.support.stacks import PREFIX, Service, a_stack, xsrf

pytest_plugins = ["tests.support.servedstacks"]


def test_hibernate_and_resume_work_without_scripts(service: Service) -> None:
    service.put(a_stack("ada"))
    page = press(service, "hibernate")
    assert service.store.view.get(ADA).spec.desired_state == "Hibernated"
    assert "Cytomine was asked to hibernate. Its data stay." in text(soup(page).select_one("#notice"))
    assert "asked for" in text(cards(page)[ADA].select_one(".message"))
    press(service, "resume")
    assert service.store.view.get(ADA).spec.desired_state == "Running"


def test_try_again_works_without_scripts(service: Service) -> None:
    service.put(a_stack("ada", phase=Phase.FAILED))
    press(service, "retry")
    assert service.store.view.get(ADA).spec.retry == 1


def test_a_button_on_the_stacks_own_page_leads_back_there(service: Service) -> None:
    service.put(a_stack("ada"))
    assert press(service, "hibernate", f"{PREFIX}stacks/{ADA}").url.path == f"{PREFIX}stacks/{ADA}"


def test_a_button_that_comes_too_late_says_why(service: Service) -> None:
    service.put(a_stack("ada", phase=Phase.FAILED))
    ada = service.browser("ada")
    page = ada.get(PREFIX)
    form = cards(page)[ADA].select_one("form[action$='/retry']")
    service.put(a_stack("ada"))
    answer = send(ada, page, form)
    assert "Nothing failed" in text(soup(answer, 409).main)


def test_a_form_without_the_pages_token_is_refused_in_words(service: Service) -> None:
    service.put(a_stack("ada"))
    ada = service.browser("ada")
    answer = ada.post(f"{PREFIX}stacks/{ADA}/hibernate", data={"_xsrf": "x"})
    assert "reload" in text(soup(answer, 403).main)
    assert service.store.view.get(ADA).spec.desired_state == "Running"


def test_the_pages_script_gets_answers_as_json(service: Service) -> None:
    service.put(a_stack("ada"))
    ada = service.browser("ada")
    headers = {"Accept": "application/json", "X-XSRFToken": xsrf(ada.get(PREFIX))}
    done = ada.post(f"{PREFIX}stacks/{ADA}/hibernate", headers=headers)
    assert done.json() == {"message": "Cytomine was asked to hibernate. Its data stay."}
    late = ada.post(f"{PREFIX}stacks/{ADA}/retry", headers=headers)
    assert (late.status_code, "resume" in late.json()["message"]) == (409, True)


def test_only_fixed_words_are_repeated_from_the_address(service: Service) -> None:
    service.put(a_stack("ada"))
    ada = service.browser("ada")
    for done, stack in (("<b>paid</b>", ADA), ("hibernate", "cm-bob"), ("hibernate", "../x")):
        page = ada.get(PREFIX, params={"done": done, "stack": stack})
        assert text(soup(page).select_one("#notice")) == ""


def ask(service: Service, **typed: str) -> httpx.Response:
    ada = service.browser("ada")
    page = ada.get(PREFIX)
    link = cards(page)[ADA].select_one(f"a[href$='/{ADA}/delete']")
    assert link is not None
    page = ada.get(str(link["href"]))
    form = soup(page).select_one("form.form")
    assert form is not None
    return send(ada, page, form, **typed)


@pytest.mark.parametrize("typed", ["", "cm-bob", "CM-ADA", " cm-ada x"])
def test_without_the_name_nothing_is_deleted(service: Service, typed: str) -> None:
    service.put(a_stack("ada"))
    page = soup(ask(service, name=typed), 400)
    assert service.store.deleted == []
    field = page.select_one("#typed")
    assert field is not None
    assert field["aria-invalid"] == "true"
    assert ADA in text(page.select_one(f"#{field['aria-describedby']}"))


def test_unless_something_else_is_chosen_the_data_are_kept(service: Service) -> None:
    service.put(a_stack("ada"))
    page = ask(service, name=ADA)
    assert service.store.deleted == [(ADA, True)]
    assert "is being deleted. Its volumes stay." in text(soup(page).select_one("#notice"))
    card = cards(page)[ADA]
    assert "Being deleted" in text(card.header)
    assert not card.select("form"), "there is nothing to do with it any more"


def test_the_data_can_be_deleted_too(service: Service) -> None:
    service.put(a_stack("ada"))
    ask(service, name=ADA, data="delete")
    assert service.store.deleted == [(ADA, False)]


def test_an_unknown_choice_on_the_data_deletes_nothing(service: Service) -> None:
    service.put(a_stack("ada"))
    assert ask(service, name=ADA, data="perhaps").status_code == 400
    assert service.store.deleted == []


def test_a_stack_made_anew_meanwhile_is_not_deleted(service: Service) -> None:
    service.put(a_stack("ada"))
    assert ask(service, name=ADA, uid="uid-of-the-old-one").status_code == 409
    assert service.store.deleted == []
