"""Configuration of a real JupyterHub with our spawner, whose pods alone are make-believe.

KubeSpawner's start, stop and poll are replaced; all that CytomineSpawner does around them is as in production.
What a start does follows from the chosen size: `small` runs, `large` breaks, `full` meets a full quota.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import resources
from pathlib import Path

from jupyterhub.proxy import Proxy
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from traitlets import Dict

from cytomine_spawner.hosts import subdomain

QUOTA = (
    "pods is forbidden: exceeded quota: team, requested: memory=4Gi, used: memory=15Gi, limited: memory=16Gi"
)


class NoProxy(Proxy):
    """The tests ask the hub itself."""

    should_start = False
    routes = Dict()

    async def add_route(self, routespec, target, data):
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec):
        self.routes.pop(routespec, None)

    async def get_all_routes(self):
        return self.routes


class Answer(RequestHandler):
    """What every notebook answers; a page of its user's own, if the test has one."""

    def get(self):
        if self.request.path.endswith("/attack"):
            self.set_header("Content-Type", "text/html; charset=utf-8")
            self.write(Path(os.environ["TEST_HUB_PAGE"]).read_text())
            return
        self.write("{}")


class Modules(RequestHandler):
    """What the hub has loaded, by the names of the packages."""

    def get(self):
        self.write({"packages": sorted({name.partition(".")[0] for name in sys.modules})})


async def start(self):
    await self.load_user_options()
    if self.mem_limit == 8 * 2**30:
        raise RuntimeError("something broke")
    if self.mem_limit == 16 * 2**30:
        error = ApiException(status=403)
        error.body = json.dumps({"message": QUOTA})
        raise error
    sockets = bind_sockets(0, "127.0.0.1")
    self.notebook = HTTPServer(Application([(".*", Answer)]))
    self.notebook.add_sockets(sockets)
    return f"http://127.0.0.1:{sockets[0].getsockname()[1]}"


async def stop(self, now=False):
    self.notebook.stop()
    del self.notebook


async def poll(self):
    return None if hasattr(self, "notebook") else 1


async def quiet(self):
    return
    yield


KubeSpawner._start, KubeSpawner.stop, KubeSpawner.poll, KubeSpawner.progress = start, stop, poll, quiet

c = get_config()  # noqa: F821 - JupyterHub's
c.JupyterHub.template_paths = [str(resources.files("cytomine_spawner").joinpath("templates"))]
if "TEST_HUB_DOMAIN" not in os.environ:
    c.JupyterHub.template_vars = {"warning_for_administrators": "All users share one host."}
port = int(os.environ["TEST_HUB_PORT"])
c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{port}"
c.JupyterHub.extra_handlers = [("/modules", Modules)]
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"root"}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.services = [{"name": "tester", "api_token": os.environ["TEST_HUB_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "tester",
        "services": ["tester"],
        "scopes": ["admin:users", "admin:servers", "access:servers", "tokens"],
    }
]
c.JupyterHub.load_groups = {"pathology": {"users": ["pat"]}}
c.JupyterHub.spawner_class = "cytomine_spawner.CytomineSpawner"
c.Spawner.consecutive_failure_limit = 3
c.CytomineSpawner.token_in_secret = False
images = [
    {"name": "standard", "display_name": "Standard", "image": "example/lab:1"},
    {"name": "gpu", "display_name": "With GPU", "image": "example/gpu:1", "default": True},
]
c.CytomineSpawner.notebook_images = json.loads(os.environ.get("TEST_HUB_IMAGES", "null")) or images
c.CytomineSpawner.notebook_sizes = [
    {"name": "small", "display_name": "Small", "cpu_limit": 1, "mem_limit": "2G", "default": True},
    {"name": "large", "display_name": "Large", "cpu_limit": 4, "mem_limit": "8G"},
    {"name": "full", "display_name": "Full", "cpu_limit": 4, "mem_limit": "16G"},
    {"name": "huge", "display_name": "Huge", "mem_limit": "64G", "groups": ["pathology"]},
]
if "TEST_HUB_DOMAIN" in os.environ:
    # Browsers come by a proxy at another port, which this hub need not know more of.
    c.JupyterHub.subdomain_host = os.environ["TEST_HUB_DOMAIN"]
    c.JupyterHub.subdomain_hook = subdomain
    c.JupyterHub.cookie_host_prefix_enabled = os.environ["TEST_HUB_DOMAIN"].startswith("https:")
    c.JupyterHub.services.append({"name": "cards", "url": f"http://127.0.0.1:{port}", "api_token": "a" * 32})
    c.JupyterHub.template_paths = [str(resources.files("cytomine_spawner") / "templates")]
    c.GuardedHub.moved_paths = {"/services/cards/": "http://cards--service.hub.example.org"}
# A proxy of the tests' own, and the real page of stacks.
if "TEST_HUB_PROXY" in os.environ:
    public = os.environ.get("TEST_HUB_DOMAIN", "")
    c.JupyterHub.proxy_class = "jupyterhub.proxy.ConfigurableHTTPProxy"
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = os.environ["TEST_HUB_PROXY"]
    c.ConfigurableHTTPProxy.auth_token = os.environ["TEST_HUB_PROXY_TOKEN"]
    c.JupyterHub.services.append(
        {
            "name": "cytomine",
            "url": os.environ["TEST_HUB_CARDS"],
            "api_token": os.environ["TEST_HUB_CARDS_TOKEN"],
            "oauth_no_confirm": True,
            "display": True,
        }
    )
    access = "access:services!service=cytomine"
    scopes = [
        "list:users",
        "read:users:name",
        "read:users:groups",
        "read:groups:name",
        "read:shares",
        "read:users:shares",
    ]
    c.JupyterHub.load_roles += [
        {"name": "user", "scopes": ["self", access]},
        {"name": "cards", "scopes": scopes, "services": ["cytomine"]},
    ]
    if public:
        own = subdomain("cytomine", public.partition("//")[2], "service")
        c.GuardedHub.moved_paths = {"/services/cytomine/": f"http://{own}"}
# Stacks, on a cluster that does not answer.
c.CytomineSpawner.cytomine_enabled = "TEST_HUB_CYTOMINE" in os.environ
c.CytomineSpawner.k8s_api_request_retry_timeout = 1
