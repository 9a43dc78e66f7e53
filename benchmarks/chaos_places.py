"""Where the benchmark of chaos runs: an installation on a real cluster, or an API server whose nodes run nothing."""

from __future__ import annotations

import contextlib
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROWS = "CREATE TABLE IF NOT EXISTS chaos (n integer)"


class Place:
    """An installation on a real cluster.

    Args:
        objects: of the namespace of its stacks.
        kubectl: kubectl in that namespace.
        hub: the objects of the namespace of the hub and the service.
    """

    def __init__(self, objects: Any, kubectl: Callable[..., str], hub: Any) -> None:
        self.objects, self._kubectl, self._hub = objects, kubectl, hub

    def kills(self) -> dict[str, Callable[[], bool]]:
        """What can be killed, by name; a kill says whether there was something to kill."""
        return {
            "hub": lambda: self._one("app.kubernetes.io/component=hub"),
            "stack service": lambda: self._one("app.kubernetes.io/component=stacks"),
            "pod of a stack": lambda: kill_pod(self.objects),
        }

    def _one(self, labels: str) -> bool:
        pods = self._hub.list("Pod", labels)
        for pod in pods:
            self._hub.delete("Pod", pod["metadata"]["name"], gracePeriodSeconds=1)
        return bool(pods)

    def write(self, stack: str, number: int) -> None:
        """Add a row to the stack's database; returns when it is written."""
        self._sql(stack, f"{ROWS}; INSERT INTO chaos VALUES ({number})")

    def read(self, stack: str) -> list[int]:
        """The rows of the stack's database."""
        return [
            int(line) for line in self._sql(stack, f"{ROWS}; SELECT n FROM chaos").split() if line.isdigit()
        ]

    def _sql(self, stack: str, text: str) -> str:
        command = (
            'PGPASSWORD="$POSTGRES_PASSWORD" PGOPTIONS="-c client_min_messages=warning" psql -v ON_ERROR_STOP=1 -qtA '
            f'-h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "{text}"'
        )
        return self._kubectl(
            "exec", f"{stack}-postgis-0", "-c", "postgis", "--", "bash", "-c", command, timeout=30
        )


class DryPlace(Place):
    """An API server whose nodes run nothing, and a service of its own behind a way that can be cut.

    Args:
        service: the service.
        cutter: its way to the API server.
    """

    def __init__(self, service: Any, cutter: Any) -> None:
        self.objects, self._service, self._cutter = service.objects, service, cutter
        self._volumes: dict[str, dict[str, list[int]]] = {}

    def kills(self) -> dict[str, Callable[[], bool]]:
        """See :class:`Place`."""
        return {
            "stack service": self._restart,
            "pod of a stack": lambda: kill_pod(self.objects),
            "connections to the API server": self._interrupt,
        }

    def _restart(self) -> bool:
        self._service.end(signal.SIGKILL)
        self._service.start()
        return True

    def _interrupt(self) -> bool:
        if random.random() < 0.5:
            self._cutter.interrupt()
        else:
            self._cutter.cut()
            time.sleep(random.uniform(0.5, 3))
            self._cutter.mend()
        return True

    def _volume(self, stack: str) -> str:
        claim = self.objects.get("PersistentVolumeClaim", f"{stack}-postgis")
        if claim is None or claim["metadata"].get("deletionTimestamp"):
            raise OSError("there is no volume")
        return str(claim["metadata"]["uid"])

    def write(self, stack: str, number: int) -> None:
        """Note a row as written on the volume of that identity."""
        self._volumes.setdefault(stack, {}).setdefault(self._volume(stack), []).append(number)

    def read(self, stack: str) -> list[int]:
        """The rows that were noted for the volume that is there now."""
        return self._volumes.get(stack, {}).get(self._volume(stack), [])


def kill_pod(objects: Any) -> bool:
    """Kill any pod of any of our stacks: a second later its processes are killed.

    Not with a grace of 0: that takes the pod out of the records while its processes still run, and a second database
    would start on the same files.
    """
    pods = [p for p in objects.list("Pod", LABEL) if owner_of(p).startswith("chaos-")]
    if pods:
        with contextlib.suppress(AssertionError):  # it went by itself meanwhile
            objects.delete("Pod", random.choice(pods)["metadata"]["name"], gracePeriodSeconds=1)
    return bool(pods)


LABEL = "app.kubernetes.io/managed-by=cytomine-stacks"


def owner_of(item: dict[str, Any]) -> str:
    """The user whose stack an object belongs to."""
    from cytomine_spawner.stack import model

    return str((item["metadata"].get("annotations") or {}).get(model.ANNOTATION_OWNER, ""))


@contextlib.contextmanager
def dry() -> Iterator[Place]:
    """An API server with all that a dry run needs."""
    from dev import cluster
    from tests.support.apiserver import Kubectl, define_stacks
    from tests.support.cutter import Cutter
    from tests.support.stackservice import Service, server_of

    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            kubeconfig = cluster.api_up(folder, nodes=3, controllers=True)
            kubectl = Kubectl(kubeconfig)
            define_stacks(kubectl)
            kubectl("create", "namespace", "chaos")
            cutter = Cutter(server_of(kubeconfig))
            service = Service(folder / "service", kubeconfig, "chaos", server=cutter.url)
            try:
                yield DryPlace(service.start(), cutter)
            finally:
                service.close()
                cutter.close()
                text = service.text()
                if "Traceback" in text:
                    print(f"The service's log has tracebacks:\n{text[text.index('Traceback') :][:3000]}")
        finally:
            cluster.api_down(folder)


def real(namespace: str, users: str) -> Place:
    """The installation of the local cluster, or of KUBECONFIG's, whose hub and whose stacks are in these namespaces."""
    import os

    from dev import cluster
    from dev.console import Problem
    from dev.kube import Kube
    from tests.support.stackservice import Objects

    foreign = os.environ.get("KUBECONFIG", "")
    if not foreign and not cluster.healthy():
        raise Problem("the local cluster does not run", "Start the demo: ./demo")
    kube = Kube(Path(foreign)) if foreign else Kube(cluster.kubeconfig(), str(cluster.bin() / "kubectl"))
    hub = Objects(kube.kubeconfig, namespace)
    if not hub.list("Pod", "app.kubernetes.io/component=stacks"):
        raise Problem(f"no stack service runs in the namespace {namespace}", "Start the demo: ./demo")

    def kubectl(*args: str, timeout: float = 60) -> str:
        return kube.kubectl("-n", users, *args, timeout=timeout)

    return Place(Objects(kube.kubeconfig, users), kubectl, hub)
