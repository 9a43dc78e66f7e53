"""One restart of hub, stack service and a gateway, in the midst of all that must not be disturbed by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from dev.demo import install
from tests.support.annotating import annotate
from tests.support.lab import Lab
from tests.support.person import wait

# The image server's process hears nothing more, but its container does not end. Not the first process: that one would
# ignore it.
FREEZE = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{pid}/cmdline", "rb") as said:
        if b"-m\\0dev.standin" in said.read() and pid != "1":
            os.kill(int(pid), signal.SIGSTOP)
"""


def cut_import(lab: Lab, *datasets: str) -> None:
    """Begin an import, and have it wait in its midst: the image server takes what comes and does not answer."""
    wanted = json.dumps({"spec": {"datasets": datasets}})
    lab.kubectl("patch", "cytominestack", lab.name, "--type=merge", "-p", wanted)
    wait(lab.jobs, "the import to begin", 180)
    lab.kubectl("exec", f"deploy/{lab.name}-pims", "-c", "pims", "--", "python", "-c", FREEZE)


def kill_images(lab: Lab) -> None:
    """Kill the stack's image server; there will be another one."""
    of_stack = f"app.kubernetes.io/instance={lab.name},app.kubernetes.io/component=pims"
    lab.kubectl("delete", "pods", "-l", of_stack, "--grace-period=0", "--force")


def part(hub: install.Installed, component: str) -> str:
    """The selector of a part of the hub."""
    return f"app.kubernetes.io/name=cytomine-hub,app.kubernetes.io/component={component}"


def uids(objects: list[dict[str, Any]]) -> list[str]:
    return [obj["metadata"]["uid"] for obj in objects]


@dataclass
class Restarted:
    """What was under way, and how it was before.

    Attributes:
        starting: whose stack was in the midst of a start.
        open: who has a session at their stack, the gateway of which was restarted, too, and a notebook.
        importing: whose import waited in its midst; none where there are no datasets.
        pods: the notebook of ``open``.
        job: of ``importing``.
        meanwhile: what the notebook of ``open`` answered while the hub was away.
    """

    starting: Lab
    open: Lab
    importing: Lab | None
    pods: list[str]
    job: str
    meanwhile: int


@contextmanager
def restarting(hub: install.Installed, worked: Lab) -> Iterator[Restarted]:
    """Restart hub, service and gateway once, and wait until hub and service are there again.

    Args:
        hub: which nobody else uses.
        worked: whose work is put to sleep, and waking up in that moment.
    """
    with ExitStack() as ends:
        opened = ends.enter_context(Lab.beside(hub, "marek", ready=False))
        importing = None
        if hub.target.dataset:
            importing = ends.enter_context(Lab.beside(hub, "lena", ready=False))
        worked.wait_ready()
        annotate(worked)
        worked.person.stop()
        worked.hibernate()
        opened.wait_ready()
        url = opened.stack_url()
        assert opened.person.come(url).status_code == 200
        assert opened.person.who(url).status_code == 200
        notebook = f"{opened.person.notebook}/api"
        assert opened.person.client.get(notebook).status_code == 200
        job = ""
        if importing:
            importing.wait_ready()
            cut_import(importing, "mock-skin")
            (job,) = uids(importing.jobs())
        worked.begin(cytomine=True)
        wait(lambda: worked.status().get("phase") == "Starting", "the stack to start")
        pods, hub_pods = uids(opened.person.pods()), uids(_live(hub))
        gateway = f"app.kubernetes.io/instance={opened.name},app.kubernetes.io/component=gateway"
        _kubectl(hub, "delete", "pods", "-l", part(hub, "hub"), "--wait=false")
        # The proxy keeps its route.
        meanwhile = opened.person.client.get(notebook).status_code
        _kubectl(hub, "delete", "pods", "-l", part(hub, "stacks"), "--wait=false")
        opened.kubectl("delete", "pods", "-l", gateway, "--wait=false")
        wait(lambda: (now := uids(_live(hub))) and now != hub_pods, "a new hub pod")
        for name in ("hub", "stacks"):
            rollout = ("rollout", "status", f"deploy/{hub.place.release}-{name}", "--timeout=270s")
            _kubectl(hub, *rollout, timeout=290)
        yield Restarted(worked, opened, importing, pods, job, meanwhile)


def _kubectl(hub: install.Installed, *args: str, **kwargs: Any) -> str:
    """kubectl where the hub is."""
    return hub.target.kube.kubectl("-n", hub.place.namespace, *args, **kwargs)


def _live(hub: install.Installed) -> list[dict[str, Any]]:
    found = hub.target.kube.get("-n", hub.place.namespace, "pods", "-l", part(hub, "hub"))
    return [p for p in (found or {"items": []})["items"] if "deletionTimestamp" not in p["metadata"]]
