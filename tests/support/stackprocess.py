"""The stack service as a process of its own on a real cluster, with settings of a test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dev.demo import install
from dev.kube import Kube
from tests.support.person import wait

ROOT = Path(__file__).parents[2]
NAME = "cm-ada"


class Place:
    """A namespace with a stack of its own."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace

    def kubectl(self, *args: str, **kwargs: Any) -> str:
        return self.kube.kubectl("-n", self.namespace, *args, **kwargs)

    def get(self, *args: str) -> dict[str, Any]:
        return self.kube.get("-n", self.namespace, *args) or {}

    def stack(self) -> dict[str, Any]:
        return self.get("cytominestack", NAME)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.stack().get("status", {})
        return status

    def create(self, **spec: Any) -> None:
        self.kube.apply(
            [
                {
                    "apiVersion": "cytomine-spawner.org/v1alpha1",
                    "kind": "CytomineStack",
                    "metadata": {"name": NAME, "namespace": self.namespace},
                    "spec": {"owner": "ada", "size": "S", **spec},
                }
            ],
            manager="test",
        )


@contextmanager
def service(
    target: install.Target, namespace: str, folder: Path, settings: dict[str, Any], *first: dict[str, Any]
) -> Iterator[Place]:
    """The service over a new namespace, until the block ends; ``first`` is made before it starts."""
    kube = target.kube
    # The hub, which defines them as well, may not be there yet.
    install.define_stacks(kube)
    labels = {"pod-security.kubernetes.io/enforce": "restricted", **install.TEST_LABELS}
    kube.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
            *({**o, "metadata": {**o["metadata"], "namespace": namespace}} for o in first),
        ]
    )
    place = Place(kube, namespace)
    names = {f"cytomine-spawner/{name}": target.image_names[name] for name in install.STACK_IMAGES}
    config = {
        "StackSettings": {
            "namespace": namespace,
            "values_files": [str(install.STACK_VALUES)],
            "image_names": names,
            "ingress_enabled": False,
            "public_access": "open",
            # A name that resolves: nginx does not start without.
            "service_internal_url": "http://kubernetes.default.svc:8000/services/cytomine",
            "allowed_components": ["cbir"],
            **settings,
        },
        "StacksApp": {"pages": False, "probe_port": 0},
    }
    path = folder / f"{namespace}.json"
    path.write_text(json.dumps(config))
    with (folder / f"{namespace}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cytomine_spawner.app", f"--config={path}"],
            cwd=ROOT, env={**os.environ, **kube.env, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield place
        assert process.poll() is None, (folder / f"{namespace}.log").read_text()[-2000:]
    finally:
        if place.stack():
            place.kubectl("delete", "cytominestack", NAME, "--wait=false")
            wait(lambda: not place.stack(), "the stack to go")
        process.terminate()
        process.wait(40)
        kube.kubectl("delete", "namespace", namespace, "--wait=false")
