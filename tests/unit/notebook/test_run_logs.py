"""Of runs that go on at the same time each keeps its own lines."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cytomine_spawner.notebook.run_logs import logged, within

LOG = logging.getLogger("mine")


@pytest.fixture(autouse=True)
def _told() -> Iterator[None]:
    before = LOG.level
    LOG.setLevel(logging.INFO)
    yield
    LOG.setLevel(before)


def words(text: str) -> list[str]:
    return [line.rpartition(": ")[2] for line in text.splitlines()]


def start(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(20)


def test_two_runs_in_two_threads_keep_their_own_lines() -> None:
    both, texts = threading.Barrier(2, timeout=20), {}

    def work(name: str) -> None:
        with logged() as log:
            both.wait()
            LOG.info("%s first", name)
            both.wait()
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(within(lambda n: LOG.info("%s worker", name)), range(3)))
            both.wait()
        texts[name] = words(log.text())

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert texts == {name: [f"{name} first", *[f"{name} worker"] * 3] for name in "ab"}


def test_a_run_alone_has_the_lines_of_all_threads() -> None:
    with logged() as log:
        start(lambda: LOG.info("elsewhere"))
    assert words(log.text()) == ["elsewhere"]


def test_a_run_inside_of_another_is_of_both() -> None:
    with logged() as outer:
        LOG.info("one")
        with logged() as inner:
            LOG.info("two")
            start(lambda: LOG.info("three"))
        LOG.info("four")
    assert (words(outer.text()), words(inner.text())) == (["one", "two", "three", "four"], ["two", "three"])


def test_of_a_thread_that_belongs_to_no_run_several_runs_say_how_much_they_left_out() -> None:
    with logged() as log:
        running, done = threading.Event(), threading.Event()

        def other() -> None:
            with logged():
                running.set()
                done.wait(20)

        context = contextvars.Context()
        thread = threading.Thread(target=context.run, args=(other,))
        thread.start()
        assert running.wait(20)
        start(lambda: LOG.info("nobody's"))
        start(within(lambda: LOG.info("mine")))
        done.set()
        thread.join(20)
    assert words(log.text())[0] == "mine"
    assert "1 lines of threads that belong to no run" in log.text()
    assert "nobody's" not in log.text()


def test_what_is_logged_after_a_run_is_of_no_run() -> None:
    with logged() as log:
        pass
    LOG.info("later")
    assert log.text() == ""
