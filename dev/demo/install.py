"""Installing this checkout's chart on a cluster, with a stand-in for LS Login; also the tests' hub."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev import cache, cluster, dataset, images, lslogin, oauth2proxy, proc
from dev.cache import ROOT
from dev.console import Console, Problem
from dev.demo import archive, mock
from dev.kube import Kube
from dev.wait import until

CHART = ROOT / "helm" / "cytomine-hub"
IMAGES = ["hub", "proxy", "stacks", "singleuser", "lslogin", "archive", "standin", "postgis", "nginx"]
# What a stack consists of here, in the place of Cytomine's own images.
STACK_IMAGES = ["standin", "postgis", "nginx", "oauth2-proxy"]
STACK_VALUES = ROOT / "dev" / "demo" / "stacks.yaml"
# Where the ingress controller of somebody's own cluster runs is not known.
ANYWHERE: tuple[dict[str, Any], ...] = ({"namespaceSelector": {}},)
# On every namespace that tests make, with the word of CYTOMINE_TEST_NAME: whoever cleans up finds them by it.
TEST_LABEL = "cytomine-spawner.org/tests"
CLIENT_ID = "cytomine-hub"
CLIENT_SECRET = "lslogin-client"  # noqa: S105 - the Secret's name, not what is in it


@dataclass(frozen=True)
class Place:
    """Where a hub is installed: release, the hub's namespace and the first labels of its hosts.

    Attributes:
        of_tests: the word of the tests whose hub it is; empty for the demo.
    """

    release: str
    namespace: str
    hub: str
    login: str
    stacks: str
    of_tests: str = ""

    @property
    def users(self) -> str:
        """The namespace of notebooks and stacks, as the chart names it."""
        return f"{self.namespace}-users"

    def url(self, port: int) -> str:
        """The hub's address in the browser."""
        return f"http://{self.hub}.localhost:{port}"

    def cards_url(self, port: int) -> str:
        """The page of the stacks, which has a host of its own as each user has; without a slash at the end."""
        return f"http://cytomine--service.{self.hub}.localhost:{port}/services/cytomine"

    def stack_url(self, port: int) -> str:
        """A stack's address in the browser; ``{stack}`` stands for its name."""
        return f"http://{{stack}}.{self.stacks}.localhost:{port}"

    def issuer(self, port: int) -> str:
        """LS Login's stand-in, as the browser knows it."""
        return f"http://{self.login}.localhost:{port}/oidc/"


DEMO = Place("hub", "cytomine", "hub", "login", "stacks")
# Another word for it, and two checkouts test on one cluster at the same time.
TEST_WORD = os.environ.get("CYTOMINE_TEST_NAME", "test")
TEST_LABELS = {TEST_LABEL: TEST_WORD}


def _of_tests(word: str) -> Place:
    return Place("hub", f"cytomine-{word}", f"hub-{word}", f"login-{word}", f"stacks-{word}", TEST_WORD)


TEST = _of_tests(TEST_WORD)
# A hub that tests restart and upgrade, while others rely on the first one.
SHAKEN = _of_tests(f"{TEST_WORD}-shaken")
# As large as the usual ones, but a node with two processors has room for a dozen.
TEST_SIZES = [
    {
        "name": name,
        "display_name": name.capitalize(),
        "cpu_guarantee": 0.02,
        "cpu_limit": cpu,
        "mem_guarantee": "256M",
        "mem_limit": memory,
        "default": name == "small",
    }
    for name, cpu, memory in (("small", 1, "2G"), ("medium", 2, "4G"), ("large", 4, "8G"))
]
# Who works in several stacks at once must be several people; the demo's list stays short.
TESTERS = ("jonas", "karin", "lena", "marek", "nora", "otto")


@dataclass(frozen=True)
class Target:
    """A cluster that is up and has the images: ``image_names`` maps ours to what pods ask for."""

    kube: Kube
    port: int
    image_names: dict[str, str]
    ingress_class: str
    # From where the ingress comes; nothing for one on the node's own network.
    ingress_from: tuple[dict[str, Any], ...] = ()
    # The mock dataset on the nodes; nothing where it is not there.
    dataset: Path | None = None


@dataclass(frozen=True)
class Installed:
    """A hub that answers: its address, LS Login's issuer and the cluster."""

    url: str
    issuer: str
    place: Place
    target: Target

    @property
    def cards(self) -> str:
        """The address of the page of the stacks, without a slash at the end."""
        return self.place.cards_url(self.target.port)


def prepare(
    console: Console,
    port: int,
    foreign: str = "",
    image_prefix: str = "",
    ingress_class: str = "",
    built: Future[tuple[dict[str, images.Archive], Path]] | None = None,
) -> Target:
    """Build what is missing and bring up a cluster that has the images.

    Args:
        console: where progress goes.
        port: port of the ingress on this machine.
        foreign: the user's own KUBECONFIG; empty for the one-node cluster of ``dev/cluster``.
        image_prefix: with a foreign cluster, the prefix under which it pulls the images.
        ingress_class: with a foreign cluster, the ingress class.
        built: a :func:`build` that is under way.

    Raises:
        Problem: something is missing or failed; its sentence says what to do.
    """
    if foreign:
        return _prepare_foreign(console, port, Path(foreign), image_prefix, ingress_class)
    _need_root()
    # What downloads and what compiles share the two cores better than one after the other.
    with ThreadPoolExecutor(2) as pool:
        started, built = pool.submit(cluster.up, console, port=port), built or pool.submit(build, console)
        started.result()
    archives, slides = built.result()
    cluster.import_images(console, list(archives.values()))
    kube = local_kube()
    names = {n: a.reference for n, a in archives.items()}
    return Target(kube, port, names, cluster.INGRESS_CLASS, dataset=slides)


def build(console: Console) -> tuple[dict[str, images.Archive], Path]:
    """Build what goes into the one-node cluster: the images by name, and the mock dataset; done if it is there.

    Raises:
        Problem: something is missing or failed.
    """
    with ThreadPoolExecutor(2) as pool:
        built = pool.submit(lambda: _with_login(console, images.build(console, IMAGES)))
        made = pool.submit(dataset.build, console)
        return built.result(), made.result()


def local_kube() -> Kube:
    """The one-node cluster of ``dev/cluster``, as its own kubectl and helm see it."""
    return Kube(cluster.kubeconfig(), str(cluster.bin() / "kubectl"), str(cluster.bin() / "helm"))


def _with_login(console: Console, archives: dict[str, images.Archive]) -> dict[str, images.Archive]:
    """The images with the one that is compiled."""
    return {**archives, "oauth2-proxy": oauth2proxy.archive(console)}


def _need_root() -> None:
    if os.geteuid():
        raise Problem(
            "The local cluster needs root, for containers and network rules",
            "Run it as root (sudo -E), or set KUBECONFIG to a cluster that you have",
        )


def _prepare_foreign(
    console: Console, port: int, kubeconfig: Path, prefix: str, ingress_class: str
) -> Target:
    if not kubeconfig.is_file():
        raise Problem(
            f"KUBECONFIG names {kubeconfig}, which does not exist",
            "Correct it, or unset it to use the local cluster",
        )
    for program in ("kubectl", "helm"):
        if not shutil.which(program):
            raise Problem(
                f"A cluster of your own needs {program}, which is not installed",
                f"Install {program} 3 or newer" if program == "helm" else "Install kubectl",
            )
    kube = Kube(kubeconfig)
    with console.step("Asking the cluster") as step:
        step.note = "without the mock dataset: its files are not on that cluster's nodes"
        context = kube.kubectl("config", "current-context", what="reading KUBECONFIG").strip()
        kube.kubectl("get", "--raw", "/readyz", what=f"asking the cluster of context {context}", timeout=20)
    if prefix:
        tags = {**{n: images.tag(n) for n in IMAGES}, "oauth2-proxy": oauth2proxy.version()}
        names = {n: f"{prefix.rstrip('/')}/{n}:{tag}" for n, tag in tags.items()}
        return Target(kube, port, names, ingress_class, ANYWHERE)
    loaders = {
        "kind-": ["kind", "load", "image-archive", "--name"],
        "k3d-": ["k3d", "image", "import", "--cluster"],
    }
    loader = next(((c, context.removeprefix(p)) for p, c in loaders.items() if context.startswith(p)), None)
    if not loader:
        raise Problem(
            f"The images cannot be put into the cluster of context {context} by this command",
            "Build and push them as docs/administrators/images.md says, then run ./demo --image-prefix PREFIX",
        )
    archives = _with_login(console, images.build(console, IMAGES))
    with console.step("Loading the images") as step:
        for archive in archives.values():
            step.detail(archive.name)
            command, name = loader
            proc.run(
                [*command, name, str(archive.path)], f"loading {archive.name}", log="images", timeout=600
            )
    return Target(kube, port, {n: a.reference for n, a in archives.items()}, ingress_class, ANYWHERE)


def install(
    console: Console,
    target: Target,
    place: Place,
    stack_values: Path = STACK_VALUES,
    *,
    per_user_hosts: bool = True,
) -> Installed:
    """Install or upgrade the chart and LS Login's stand-in, and wait until the hub answers.

    Args:
        console: where progress goes.
        target: the cluster.
        place: where on it.
        stack_values: what is laid over the chart's own values of stacks; the demo's stand-ins if not given.
        per_user_hosts: whether each user has a host, as the chart has it.
    """
    kube, port = target.kube, target.port
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": place.namespace,
            "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                **({TEST_LABEL: place.of_tests} if place.of_tests else {}),
            },
        },
    }
    _refuse_former(kube, place)
    with console.step("LS Login's stand-in"):
        kube.apply([namespace])
        secret = _client_secret(kube, place)
        objects = lslogin.objects(
            namespace=place.namespace,
            image=target.image_names["lslogin"],
            issuer=place.issuer(port),
            redirect_uris=[f"{place.url(port)}/hub/oauth_callback"],
            post_logout_uris=[
                f"{place.url(port)}/hub/login",
                f"{place.url(port)}/hub/logout",
                f"{place.url(port)}/",
            ],
            client_id=CLIENT_ID,
            client_secret=secret,
            ingress_class=target.ingress_class or cluster.INGRESS_CLASS,
            users=[lslogin.user(key, "For tests") for key in TESTERS] if place.of_tests else (),
        )
        kube.apply(objects)
    if target.dataset:
        with console.step("The archive's stand-in"):
            mock.apply(kube, place.namespace, target.dataset)
            kube.apply(
                archive.objects(
                    place.namespace,
                    place.users,
                    target.image_names["archive"],
                    place.issuer(port),
                    target.dataset,
                )
            )
    with console.step("The hub's chart") as step:
        define_stacks(kube)
        values = _values(target, place)
        values["hub"]["perUserHosts"] = per_user_hosts
        path = cache.home() / f"values-{place.namespace}.json"
        path.write_text(json.dumps(values, indent=1))
        step.detail("helm upgrade --install")
        _helm_install(kube, place, path, stack_values)
        # In the namespace that the chart makes; the hub itself does without.
        if target.dataset:
            mock.apply(kube, place.users, target.dataset)
    with console.step("Waiting for the hub"):
        kube.kubectl(
            "-n",
            place.namespace,
            "rollout",
            "status",
            "deploy/lslogin",
            "--timeout=120s",
            what="starting LS Login's stand-in",
            timeout=130,
        )
        if target.dataset:
            kube.kubectl(
                "-n",
                place.namespace,
                "rollout",
                "status",
                "deploy/archive",
                "--timeout=120s",
                what="starting the archive's stand-in",
                timeout=130,
            )
        until(lambda: answers(f"http://127.0.0.1:{port}/hub/health", f"{place.hub}.localhost:{port}"), "the hub to answer through the ingress", 120,
              cure=f"Read kubectl -n {place.namespace} logs deploy/{place.release}-hub")  # fmt: skip
        until(lambda: answers(f"http://127.0.0.1:{port}/oidc/.well-known/openid-configuration", f"{place.login}.localhost:{port}"), "LS Login's stand-in to answer through the ingress", 60,
              cure=f"Read kubectl -n {place.namespace} logs deploy/lslogin")  # fmt: skip
    return Installed(place.url(port), place.issuer(port), place, target)


def _refuse_former(kube: Kube, place: Place) -> None:
    """An installation whose users are in the hub's namespace stays as it is, or goes: the chart says the same."""
    selector = f"cytomine-spawner.org/hub={place.release}"
    left = kube.get("-n", place.namespace, "pvc", "-l", selector) or {"items": []}
    if left["items"]:
        raise Problem(
            f"The namespace {place.namespace} holds files of users from before these had a namespace of their own",
            "Remove it with what users stored there (./demo reset, or python3 -m dev.real --remove), and begin anew",
        )


def define_stacks(kube: Kube) -> None:
    """Let the cluster know what a stack is: Helm installs a chart's definitions once and never renews them."""
    crds = ["apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds")]
    kube.kubectl(*crds, what="defining stacks")
    served = ["wait", "--for=condition=Established", "--timeout=30s", "-f", str(CHART / "crds")]
    kube.kubectl(*served, what="waiting for the API server to know stacks")


def answers(url: str, host: str) -> bool:
    """Whether the ingress on this machine answers 200 for a host."""
    request = urllib.request.Request(url, headers={"Host": host})  # noqa: S310 - a loopback address
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _client_secret(kube: Kube, place: Place) -> str:
    """The OIDC client's secret: made once a namespace, shared by the hub and the stand-in."""
    found = kube.get("-n", place.namespace, "secret", CLIENT_SECRET)
    if found:
        return base64.b64decode(found["data"]["client-secret"]).decode()
    value = secrets.token_urlsafe(32)
    kube.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": CLIENT_SECRET, "namespace": place.namespace},
                "stringData": {"client-secret": value},
            }
        ]
    )
    return value


def _values(target: Target, place: Place) -> dict[str, Any]:
    """The chart's values that only this machine knows: images, addresses, LS Login's stand-in."""

    def image(name: str) -> dict[str, str]:
        repository, tag = target.image_names[name].rsplit(":", 1)
        return {"name": repository, "tag": tag}

    url = place.url(target.port)
    return {
        "hub": {"image": image("hub"), "publicUrl": url},
        "proxy": {"image": image("proxy")},
        "singleuser": {
            "image": image("singleuser"),
            # Rings that run beside each other make a server slow to answer; the tests say how long they wait.
            **({"sizes": TEST_SIZES, "httpTimeout": 180} if place.of_tests else {}),
        },
        "stacks": {
            "enabled": True,
            "url": place.stack_url(target.port),
            "image": image("stacks"),
            **mock.values(target.dataset, *([mock.ABSENT] if place.of_tests else [])),
            "ingress": {"className": target.ingress_class, "from": list(target.ingress_from)},
            "config": {
                "StackSettings": {
                    "image_names": {
                        f"cytomine-spawner/{name}": target.image_names[name] for name in STACK_IMAGES
                    },
                    # The tests wait for a session that asks anew; people need not.
                    **({"session_refresh": 10} if place.of_tests else {}),
                }
            },
        },
        **({"archive": archive.values(place.namespace)} if target.dataset else {}),
        "ingress": {"enabled": True, "className": target.ingress_class, "host": f"{place.hub}.localhost"},
        **({"users": {"labels": TEST_LABELS}} if place.of_tests else {}),
        "lslogin": {
            "issuer": place.issuer(target.port),
            "internalIssuer": f"http://lslogin.{place.namespace}.svc/oidc/",
            "clientId": CLIENT_ID,
            "clientSecretName": CLIENT_SECRET,
        },
    }


def _helm_install(kube: Kube, place: Place, values: Path, stack_values: Path) -> None:
    common = [
        "--namespace",
        place.namespace,
        "--values",
        str(ROOT / "dev/demo/values.yaml"),
        "--values",
        str(values),
        "--set-file",
        f"stacks.valuesFiles.demo={stack_values}",
    ]
    # An upgrade that was cut leaves the release "pending": helm then refuses every further one.
    history = subprocess.run(
        [kube.helm_path, "status", place.release, "-n", place.namespace, "-o", "json"],
        env={**os.environ, **kube.env}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if history.returncode == 0 and json.loads(history.stdout)["info"]["status"].startswith("pending"):
        kube.kubectl(
            "-n",
            place.namespace,
            "delete",
            "secret",
            "-l",
            f"owner=helm,name={place.release},status in (pending-install,pending-upgrade,pending-rollback)",
            what="clearing a cut installation",
        )
    kube.helm("upgrade", "--install", place.release, str(CHART), *common, "--wait", "--timeout", "4m",
              what="installing the hub's chart", timeout=300)  # fmt: skip


def remove(console: Console, kube: Kube, place: Place) -> None:
    """Delete a hub and all that it made, users' files included."""
    with console.step(f"Removing the namespaces {place.namespace} and {place.users}"):
        # Before the second namespace there was, all was in the first.
        for namespace in (place.users, place.namespace):
            _remove_stacks(kube, namespace)
        for namespace in (place.namespace, place.users):
            _delete_namespace(kube, namespace)
            mock.remove(kube, namespace)
        # The service's right to see nodes: all that is outside of the namespaces.
        name = f"{place.namespace}-{place.release}-stacks"
        rights = ["delete", "clusterroles,clusterrolebindings", name, "--ignore-not-found"]
        kube.kubectl(*rights, what="removing the service's right to see nodes")


def remove_tests(console: Console, kube: Kube) -> None:
    """Delete the tests' hubs and the namespaces that tests have made beside them, whatever state they are in."""
    labelled = kube.get("namespaces", "-l", f"{TEST_LABEL}={TEST_WORD}") or {"items": []}
    names = {namespace["metadata"]["name"] for namespace in labelled["items"]}
    hubs = [place for place in (TEST, SHAKEN) if place.namespace in names]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(remove, console, kube, place) for place in hubs]
        for name in names - {name for place in hubs for name in (place.namespace, place.users)}:
            # What served its stacks was a process of the tests.
            _release_stacks(kube, name)
            jobs.append(pool.submit(_delete_namespace, kube, name))
        for job in jobs:
            job.result()


def _delete_namespace(kube: Kube, name: str) -> None:
    words = ["delete", "namespace", name, "--ignore-not-found", "--timeout=120s"]
    kube.kubectl(*words, what=f"deleting {name}", timeout=130)


def _remove_stacks(kube: Kube, namespace: str) -> None:
    """Stacks first, while their service runs; where it does not, their mark is taken off, or nothing could go."""
    if not kube.get("crd", "cytominestacks.cytomine-spawner.org"):
        return
    with contextlib.suppress(Problem):
        kube.kubectl("-n", namespace, "delete", "cytominestacks", "--all", "--timeout=60s", timeout=70)
        return
    _release_stacks(kube, namespace)


def _release_stacks(kube: Kube, namespace: str) -> None:
    """Take off the mark by which a service holds its stacks until it has removed what is theirs."""
    left = kube.get("-n", namespace, "cytominestacks") or {"items": []}
    for stack in left["items"]:
        kube.kubectl(
            "-n", namespace, "patch", "cytominestack", stack["metadata"]["name"],
            "--type=merge", "-p", '{"metadata":{"finalizers":null}}',
            what="releasing a stack",
        )  # fmt: skip


def stop(console: Console, foreign: str) -> None:
    """Stop the local cluster, or scale nothing on a foreign one and say so."""
    if foreign:
        raise Problem(
            "The demo runs on your own cluster, which this command does not stop",
            "Use ./demo reset to remove the demo from it",
        )
    _need_root()
    cluster.down(console)


def reset(console: Console, foreign: str) -> None:
    """Delete the demo: the local cluster's state, or the demo's namespaces on a foreign cluster."""
    if foreign:
        remove(console, Kube(Path(foreign)), DEMO)
        return
    _need_root()
    cluster.down(console, wipe=True)


def status(console: Console, foreign: str) -> int:
    """Print what runs; 0 if the demo is up."""
    if foreign:
        kube = Kube(Path(foreign))
        for namespace in (DEMO.namespace, DEMO.users):
            console.say(kube.kubectl("-n", namespace, "get", "pods", what="asking for the demo's pods"))
        return 0
    return 0 if cluster.status(console) else 1
