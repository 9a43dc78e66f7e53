"""Hub, stack service and a gateway are restarted once, in the midst of everything: nobody loses anything by it."""

from __future__ import annotations

from tests.support.annotating import counted
from tests.support.lab import Lab
from tests.support.person import wait
from tests.support.restarting import Restarted, uids


def known(lab: Lab) -> None:
    wait(lambda: lab.person.get("user").status_code == 200, "the hub to know the session")


def test_a_notebook_outlives_a_restart_of_the_hub_which_finds_it_again(restarted: Restarted) -> None:
    lab = restarted.open
    assert restarted.meanwhile == 200, "the notebook answers while the hub is away"
    known(lab)
    wait(lab.person.ready, "the hub to find the notebook")
    assert len(restarted.pods) == 1
    assert uids(lab.person.pods()) == restarted.pods
    assert lab.person.client.get(f"{lab.person.notebook}/api").status_code == 200


def test_restarts_of_hub_service_and_gateway_log_nobody_out(restarted: Restarted) -> None:
    lab = restarted.open
    url = lab.stack_url()
    # Longer than the time after which a session asks anew whether its user still may.
    for _ in range(2):
        wait(lambda: lab.person.who(url).status_code == 200, "the session to go on", 120)
        wait_for_refresh(lab, url)
    assert lab.person.who(url).status_code == 200


def wait_for_refresh(lab: Lab, url: str) -> None:
    """Wait until the session's cookie was renewed, which is when the service was asked anew."""

    def renewed() -> bool:
        answer = lab.person.who(url)
        assert answer.status_code == 200, answer.status_code
        return any("session" in c for c in answer.headers.get_list("set-cookie"))

    wait(renewed, "the session to be renewed", 90)


def test_hub_and_service_may_restart_in_the_middle_of_a_start(restarted: Restarted) -> None:
    lab = restarted.starting
    wait(lab.is_ready, lambda: f"the stack, which is {lab.status()}", 180)
    known(lab)
    assert len(lab.stacks()) == 1
    wait(lab.person.ready, "the notebook")
    counted(lab)
