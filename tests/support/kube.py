"""A spawner without a hub, and a kubeconfig that points nowhere, for tests without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from traitlets.config import Config

IMAGES = [
    {"name": "standard", "display_name": "Standard", "description": "JupyterLab.", "image": "example/lab:1"},
    {"name": "gpu", "display_name": "With GPU", "image": "example/gpu:1", "default": True},
]
SIZES = [
    {"name": "small", "display_name": "Small", "cpu_guarantee": 0.5, "cpu_limit": 1, "mem_limit": "2G"},
    {"name": "large", "display_name": "Large", "cpu_limit": 4, "mem_guarantee": "4G", "mem_limit": "8G"},
    {"name": "huge", "display_name": "Huge", "cpu_limit": 16, "mem_limit": "64G", "groups": ["pathology"]},
]


def kubeconfig(folder: Path, server: str = "http://127.0.0.1:9") -> Path:
    """KubeSpawner reads one when it is made; the address is the discard port, where nobody listens."""
    path = folder / "kubeconfig"
    cluster = {"name": "none", "cluster": {"server": server}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    user = {"name": "none", "user": {"token": "none"}}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "none",
        "clusters": [cluster],
        "contexts": [context],
        "users": [user],
    }
    path.write_text(json.dumps(content))
    return path


def make_spawner(cls: type[Any], *, user: str = "ada", groups: tuple[str, ...] = (), **settings: Any) -> Any:
    """A spawner with test images and sizes; `settings` are those of its class, as from jupyterhub_config.py."""
    config = Config()
    section = {"notebook_images": IMAGES, "notebook_sizes": SIZES, "namespace": "test", **settings}
    config[cls.__name__].update(section)
    person = SimpleNamespace(
        name=user,
        id=1,
        url=f"/user/{user}/",
        escaped_name=user,
        groups=[SimpleNamespace(name=group) for group in groups],
    )
    hub = SimpleNamespace(
        public_host="", url="http://hub/hub/", base_url="/hub/", api_url="http://hub/hub/api", host="hub"
    )
    return cls(config=config, user=person, hub=hub, api_token="t0ken", oauth_client_id="client", _mock=True)
