"""Datasets of the archive get into a stack: who gets the token for it, and that all of it arrives, a slide at a time."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import re
import threading
import time
import uuid

import pytest

from cytomine_spawner.access.importtokens import ImportTokens
from cytomine_spawner.archive import FixedToken, HubToken, SdaFileSystem, TokenRefused
from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.cluster.client import KubeError
from cytomine_spawner.common.importmarks import PROJECT, brought
from cytomine_spawner.datasets import archive as dataset_archive
from cytomine_spawner.datasets.errors import DatasetError, Interrupted
from cytomine_spawner.datasets.importer import FAULT
from cytomine_spawner.operator import imports
from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import Import
from dev import archive
from tests.support.importing import COUNT, make, whole
from tests.support.stacks import PREFIX, a_stack, serving

pytest_plugins = ["tests.support.importstack"]

DATASET = "sda://aa-Dataset-x"


# -- who gets a token --------------------------------------------------------------------------------------


class Cluster:
    """As much of the API server as tells pods apart."""

    namespace = "cytomine"

    def __init__(self):
        self.keys = [archive.Key("RS256"), archive.Key("ES256")]
        self.stranger = archive.Key("RS256")
        self.pods, self.silent = {}, False
        self.asked = 0

    async def signing_keys(self):
        self.asked += 1
        if self.silent:
            raise KubeError(0, "Timeout", "The API server does not answer")
        return {"keys": [key.public() for key in self.keys]}

    async def get(self, kind, name):
        assert kind == "Pod"
        if self.silent:
            raise KubeError(0, "Timeout", "The API server does not answer")
        return self.pods.get(name)

    def pod(self, name="cm-ada-datasets-1-abc", stack="cm-ada", component="datasets", **changes):
        """A pod as the operator's Job makes it."""
        labels = {**model.child_labels(stack, component), **changes.pop("labels", {})}
        meta = {
            "name": name,
            "uid": str(uuid.uuid4()),
            "labels": labels,
            "annotations": {model.ANNOTATION_DATASET: changes.pop("dataset", DATASET)},
            **changes.pop("metadata", {}),
        }
        self.pods[name] = {"metadata": meta, "status": {"phase": changes.pop("phase", "Running")}}
        return self.pods[name]

    def token(self, pod, key=None, headers=None, **changes):
        """The kubelet's token for a pod."""
        now = int(time.time())
        meta = pod["metadata"]
        bound = {"namespace": "cytomine", "pod": {"name": meta["name"], "uid": meta["uid"]}}
        claims = {
            "aud": [model.IMPORT_AUDIENCE],
            "exp": now + 600,
            "iat": now,
            "iss": "https://kubernetes.default.svc",
            "sub": "system:serviceaccount:cytomine:default",
            "kubernetes.io": {**bound, **changes.pop("bound", {})},
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        return (key or self.keys[0]).sign(kept, headers or {})


class Hub:
    """As much of the hub as gives tokens."""

    def __init__(self):
        self.answer, self.asked = (200, {"access_token": "SECRET-token", "expires_in": 60}), []

    async def archive_token(self, stack, dataset, refused=""):
        self.asked.append((stack.spec.owner, stack.spec.server_name, dataset, refused))
        return self.answer


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def hub():
    return Hub()


@pytest.fixture
def service(cluster, hub):
    with serving(imports=ImportTokens(cluster, hub)) as made:
        now = a_stack().status.last_activity
        made.put(a_stack("ada", datasets=(DATASET,), ready_at=now), a_stack("bob", ready_at=now))
        yield made


def ask(service, token, stack="cm-ada", **given):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return service.client().post(f"{PREFIX}imports/{stack}/archive-token", headers=headers, **given)


def refused(answer, status=403):
    assert answer.status_code == status, answer.text
    assert "SECRET" not in answer.text


def test_the_import_gets_its_owners_token(service, cluster, hub):
    for key in cluster.keys:
        answer = ask(service, cluster.token(cluster.pod(), key), json={"refused": "d1"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["access_token"] == "SECRET-token"
        assert answer.headers["cache-control"] == "no-store"
    assert hub.asked == [("ada", "", DATASET, "d1")] * 2


def test_the_archives_client_asks_it_as_it_asks_a_hub(service, cluster, hub, tmp_path):
    identity = tmp_path / "token"
    identity.write_text(cluster.token(cluster.pod()) + "\n")
    source = HubToken(f"{service.url}{PREFIX}imports/cm-ada/archive-token", str(identity))
    assert asyncio.run(source.current()) == "SECRET-token"
    assert "SECRET" not in repr(source)
    hub.answer = (409, {"message": "Sign out of the hub and in again."})
    with pytest.raises(TokenRefused, match="Sign out of the hub and in again"):
        asyncio.run(source.renew("x"))


FORGED = {
    "of another audience": {"aud": ["https://kubernetes.default.svc"]},
    "of no audience": {"aud": None},
    "ended": {"exp": int(time.time()) - 60},
    "without an end": {"exp": None},
    "of another namespace": {"bound": {"namespace": "elsewhere"}},
    "of no pod": {"bound": {"pod": None}},
    "of another pod of the name": {"bound": {"pod": {"name": "cm-ada-datasets-1-abc", "uid": "former"}}},
    "of a pod that is gone": {"bound": {"pod": {"name": "gone", "uid": "u"}}},
    "of an account alone": {"kubernetes.io": None},
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_token_that_is_not_this_pods_gets_nothing(service, cluster, hub, kind):
    refused(ask(service, cluster.token(cluster.pod(), **FORGED[kind])))
    assert not hub.asked


def test_a_signature_of_somebody_else_gets_nothing(service, cluster, hub):
    pod = cluster.pod()
    refused(ask(service, cluster.token(pod, cluster.stranger)))
    # under the name of a key that is known
    refused(ask(service, cluster.token(pod, cluster.stranger, {"kid": cluster.keys[0].id})))
    good = cluster.token(pod)
    refused(ask(service, good[:-4] + "AAAA"))
    for text in ("", "x", "a.b.c", good.rpartition(".")[0] + "."):
        refused(ask(service, text))
    assert not hub.asked


@pytest.mark.parametrize(
    "pod",
    [
        {"component": "core"},
        {"component": "gateway"},
        {"stack": "cm-bob"},
        {"labels": {"app.kubernetes.io/managed-by": "somebody"}},
        {"phase": "Succeeded"},
        {"phase": "Failed"},
        {"dataset": "mock"},
        {"metadata": {"deletionTimestamp": "2026-11-30T00:00:00Z"}},
    ],
    ids=str,
)
def test_another_pod_of_the_stacks_gets_nothing(service, cluster, hub, pod):
    """A gateway or a core that was broken into has a token of the cluster at most for itself."""
    refused(ask(service, cluster.token(cluster.pod(**pod))))
    assert not hub.asked


def test_for_what_is_not_to_be_imported_there_is_no_token(service, cluster, hub):
    token = cluster.token(cluster.pod(dataset="sda://another"))
    refused(ask(service, token), 409)
    service.put(a_stack("ada", datasets=(DATASET,), desired_state="Hibernated"))
    refused(ask(service, cluster.token(cluster.pod())), 409)
    refused(ask(service, cluster.token(cluster.pod(stack="cm-none")), stack="cm-none"), 409)
    assert not hub.asked


@pytest.mark.parametrize(
    "body", ["[" * 100_000, "[]", "no json", '{"refused": 3}', '{"refused": "%s"}' % ("x" * 65)]
)
def test_what_names_no_refused_token_is_refused(service, cluster, hub, body):
    refused(ask(service, cluster.token(cluster.pod()), content=body), 400)
    assert not hub.asked


def test_users_of_the_hub_get_nothing_here_even_the_owner(service, cluster, hub):
    path = f"{PREFIX}imports/cm-ada/archive-token"
    refused(service.program("ada").post(path))
    refused(service.browser("ada").post(path))
    refused(service.program("root", admin=True).post(path))
    assert not hub.asked


def test_a_cluster_that_says_nothing_is_said_and_keys_are_not_asked_for_all_the_time(service, cluster):
    pod = cluster.pod()
    assert ask(service, cluster.token(pod)).status_code == 200
    for _ in range(5):
        refused(ask(service, cluster.token(pod, cluster.stranger)))
    assert cluster.asked == 1
    cluster.silent = True
    refused(ask(service, cluster.token(pod)), 503)


# -- the Job -----------------------------------------------------------------------------------------------


def offering(**changes):
    return StackSettings(
        namespace="cytomine", archive_url="https://archive.example.org", service_namespace="hub", **changes
    )


def objects(*names, settings=None):
    stack = a_stack("ada", datasets=names, ready_at=a_stack().status.last_activity)
    made = render.render(stack, settings or offering(), Import(names, "1"))
    return [o for o in made if o["metadata"]["labels"]["app.kubernetes.io/component"] == "datasets"]


def test_the_job_holds_no_token_and_reaches_the_archive_the_service_and_the_gateway_alone():
    found = {o["kind"]: o for o in objects(DATASET)}
    pod = found["Job"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (identity,) = [v["projected"]["sources"] for v in pod["volumes"] if v["name"] == "identity"]
    assert identity == [
        {"serviceAccountToken": {"path": "token", "audience": "cytomine-stacks", "expirationSeconds": 600}}
    ]
    (container,) = pod["containers"]
    assert not container.get("env")
    assert container["command"][-2:] == ["--", DATASET]
    assert "--archive=https://archive.example.org" in container["command"]
    labels = found["Job"]["spec"]["template"]["metadata"]["labels"]
    policy = found["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    to = [rule["to"][0] for rule in policy["egress"]]
    assert to[0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert to[1]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == "hub"
    assert "10.0.0.0/8" in to[2]["ipBlock"]["except"]
    assert policy["egress"][2]["ports"] == [{"port": 443}]


def test_a_dataset_on_a_volume_does_not_come_to_reach_the_archive():
    settings = offering(
        datasets=[{"name": "mock"}], dataset_volume={"persistentVolumeClaim": {"claimName": "x"}}
    )
    found = objects("mock", DATASET, settings=settings)
    plain, remote = (o for o in found if o["kind"] == "Job")
    policies = {
        o["metadata"]["name"]: o["spec"]["podSelector"]["matchLabels"] for o in found if "Policy" in o["kind"]
    }
    assert set(policies) == {"cm-ada-datasets", "cm-ada-archive"}
    labels = plain["spec"]["template"]["metadata"]["labels"]
    assert not policies["cm-ada-archive"].items() <= labels.items()
    assert policies["cm-ada-archive"].items() <= remote["spec"]["template"]["metadata"]["labels"].items()


def test_without_an_archive_such_a_dataset_is_not_offered():
    stack = a_stack("ada", datasets=(DATASET,), ready_at=a_stack().status.last_activity)
    assert imports.due(stack, StackSettings(namespace="cytomine")) is None
    assert imports.due(stack, offering()).names == (DATASET,)
    assert offering().dataset_title("sda://https%3A%2F%2Fdoi.org%2F1") == "https://doi.org/1"


# -- the import --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local():
    with archive.running() as found:
        yield found


@pytest.fixture(scope="module")
def server(local):
    with local.archive(version=2) as found:
        yield found


@pytest.fixture
def filled(local, server, tmp_path):
    """Puts a dataset of two images into the archive; gives its id and the archive as its owner sees it."""

    def fill(name, **options):
        root = make(tmp_path / "origin", name)
        folder = next(root.glob(f"*/DATASET_{name}"))
        dataset = f"aa-Dataset-{name}"
        local.loop.run(local.content.add_folder(dataset, folder.parent))
        token = local.issuer.token(local.someone(name, dataset))
        return dataset, SdaFileSystem(
            server.url, token=FixedToken(token), cache_size=0, skip_instance_cache=True, patience=5, **options
        )

    return fill


def run(stack, fs, dataset, root, said=None, tell=lambda _: None, **options):
    root.mkdir(exist_ok=True)
    keys = (stack.local.url, stack.keys["primaryKey"], stack.keys["secondaryKey"])
    progress = said.append if said is not None else tell
    return asyncio.run(dataset_archive.import_dataset(keys, fs, dataset, root, progress=progress, **options))


def on_disk(root):
    return sum(
        path.stat().st_blocks * 512 for path in root.rglob("*") if path.is_file() and path.suffix == ".png"
    )


def test_a_dataset_arrives_whole_and_no_slide_stays_on_the_way(stack, filled, tmp_path):
    dataset, fs = filled("faraway")
    said = []
    (done,) = run(stack, fs, dataset, tmp_path / "work", said)
    assert (done.images, done.annotations) == (2, COUNT)
    whole(stack, "faraway")
    marks = stack.get(f"/api/domain/{PROJECT}/{done.project}/property.json?max=0")["collection"]
    sent = stack.get(f"/api/project/{done.project}/imageinstance.json?max=0")["collection"]
    wanted = {"made", *(brought(one["id"], f"sda://{dataset}") for one in sent)}
    assert {one["value"] for one in marks} == wanted
    assert on_disk(tmp_path / "work") == 0
    fetched = [now.what for now in said if now.what.startswith("fetching")]
    assert any("faraway-2.png from the archive" in what and "2 of 2 files" not in what for what in fetched)
    assert any("1 of 2 files so far" in what for what in fetched)


def test_slides_that_are_in_already_are_not_fetched_again(stack, filled, local, server, tmp_path):
    dataset, fs = filled("resumed")
    run(stack, fs, dataset, tmp_path / "first")
    slides = [file.id for file in local.content.datasets[dataset].files if ".png" in file.path]
    assert all(server.counters.files[slide].requests for slide in slides)
    server.counters.reset()
    run(stack, fs, dataset, tmp_path / "second")
    assert server.counters.files, "nothing was asked for"
    assert not set(slides) & set(server.counters.files)
    whole(stack, "resumed")


def test_one_that_is_too_large_is_told_before_anything_is_fetched(stack, filled, tmp_path):
    dataset, fs = filled("toolarge")
    with pytest.raises(DatasetError, match="the volume of this Cytomine holds 0 MiB"):
        run(stack, fs, dataset, tmp_path / "work", room=10)
    assert stack.inside("toolarge") == {"projects": 0}


def test_a_grant_that_was_taken_away_is_told(stack, filled, local, tmp_path):
    _, fs = filled("granted")
    other = "aa-Dataset-never-granted"
    local.add(other, "DATASET_never/IMAGES/a/a.png", archive.Bytes(b"x"))
    with pytest.raises(DatasetError, match="visas do not grant aa-Dataset-never-granted any more"):
        run(stack, fs, other, tmp_path / "work")


def test_an_archive_that_is_away_is_an_interruption(stack, filled, server, tmp_path):
    dataset, fs = filled("away")
    server.faults.append(archive.Fault("status", path="/datasets", times=10_000, status=503))
    try:
        with pytest.raises(Interrupted, match="503"):
            run(stack, fs, dataset, tmp_path / "work")
    finally:
        server.faults.clear()


def test_what_is_waited_for_is_told_and_the_import_goes_on_once_the_archive_answers(
    stack, filled, local, server, tmp_path
):
    dataset, fs = filled("late")
    listing = archive.Fault("status", path="/datasets/", times=0, status=503)
    last = max(local.content.datasets[dataset].files, key=lambda file: (".png" in file.path, file.path))
    slide = archive.Fault("status", path=re.escape(last.id), times=0, status=503)
    server.faults += [listing, slide]
    lines = []

    def tell(now):
        lines.append(str(now))
        if now.waits:
            gone = listing if listing in server.faults else slide
            server.faults[:] = [fault for fault in server.faults if fault is not gone]

    try:
        (done,) = run(stack, fs, dataset, tmp_path / "work", tell=tell)
    finally:
        server.faults.clear()
    assert done.images == 2
    first, *_, second = [line for line in lines if "waiting" in line]
    assert re.fullmatch(
        r"looking at what the archive has of it, waiting for the archive: the archive answers 503.*; tell the archive's "
        r"operators if it stays so; goes on trying until \d\d:\d\d UTC",
        first,
    )
    assert "looking at what the archive has of it" in lines
    assert re.match(
        r"\d of 2 images .* are in, .*fetching .*, waiting for the archive: the archive answers 503", second
    )
    assert "waiting" not in lines[-1]


class Tokens:
    """Where tokens are given, in the place of the stacks' service: answers what it is told to."""

    def __init__(self):
        self.status, self.answer = 200, {}

    @contextlib.contextmanager
    def serving(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler):  # noqa: N805
                data = json.dumps(self.answer).encode()
                handler.send_response(self.status)
                handler.send_header("Content-Length", str(len(data)))
                handler.end_headers()
                handler.wfile.write(data)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
            thread = threading.Thread(target=found.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{found.server_port}/archive-token"
            finally:
                found.shutdown()
                thread.join()


@pytest.fixture
def tokens():
    made = Tokens()
    with made.serving() as made.url:
        yield made


@pytest.fixture
def identity(tmp_path):
    path = tmp_path / "identity"
    path.write_text("SECRET-identity-of-this-pod\n")
    return path


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, None])
def test_a_hub_that_gives_no_token_for_the_moment_is_told_and_waited_for(
    stack, filled, local, tokens, identity, tmp_path, status
):
    dataset, known = filled(f"hub{status}")
    good = {"access_token": local.issuer.token(local.someone(f"hub{status}", dataset)), "expires_in": 600}
    tokens.status, tokens.answer = status or 200, {"message": "No SECRET-identity-of-this-pod. Try later."}
    source = HubToken(tokens.url if status else "http://127.0.0.1:9/", str(identity))
    fs = SdaFileSystem(known._http.base, token=source, cache_size=0, skip_instance_cache=True, patience=60)
    waited = []

    def tell(now):
        if now.waits:
            waited.append(str(now))
            source.url, tokens.status, tokens.answer = tokens.url, 200, good

    (done,) = run(stack, fs, dataset, tmp_path / "work", tell=tell)
    assert done.images == 2
    assert f"({status})" in waited[0] if status else "the hub, which gives the token, cannot be" in waited[0]
    assert "; ask an administrator of the hub if it stays so; goes on trying until" in waited[0]
    assert "SECRET" not in waited[0]


def command(stack, tmp_path, *arguments):
    connection = stack.connection(tmp_path / "connection")
    return dataset_archive.main(["--connection", str(connection), *map(str, arguments), "sda://aa-Dataset-x"])


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_what_no_other_try_can_change_ends_the_import_at_once_with_its_sentence(
    stack, server, tokens, identity, tmp_path, capsys, status
):
    tokens.status = status
    tokens.answer = {"message": "Sign out of the hub and in again."}
    given = ("--archive", server.url, "--tokens", tokens.url, "--identity", identity)
    assert command(stack, tmp_path, *given) == FAULT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("Sign out of the hub and in again" in said) is (status != 404)


@pytest.mark.parametrize(
    ("archive_url", "said"),
    [
        ("http://archive.example.org", "not encrypted"),
        ("https://ada:SECRET-word@archive.example.org", "no address of an archive"),
        ("", "no address of an archive"),
    ],
)
def test_a_bad_configuration_ends_the_import_at_once_with_its_sentence(
    stack, identity, tmp_path, capsys, monkeypatch, archive_url, said
):
    monkeypatch.setenv("SDA_URL", "nowhere")
    given = ("--archive", archive_url, "--tokens", "http://127.0.0.1:9/", "--identity", identity)
    assert command(stack, tmp_path, *given) == FAULT
    found = capsys.readouterr().err
    assert said in found
    assert "An administrator must" in found
    assert "SECRET" not in found


def test_a_pod_without_its_token_ends_at_once(stack, server, tokens, tmp_path, capsys):
    given = ("--archive", server.url, "--tokens", tokens.url, "--identity", tmp_path / "none")
    assert command(stack, tmp_path, *given) == FAULT
    assert "cannot be read" in capsys.readouterr().err


def test_paths_that_lead_out_of_the_dataset_are_not_followed(stack, filled, local, tmp_path):
    dataset, fs = filled("outside")
    local.add(dataset, "DATASET_outside/IMAGES/../../../../escaped.png", archive.Bytes(b"x"))
    with pytest.raises(DatasetError):
        run(stack, fs, dataset, tmp_path / "work")
    inside = tmp_path / "work" / dataset
    assert {path.parts[len(inside.parts)] for path in tmp_path.rglob("escaped.png")} <= {"DATASET_outside"}
    assert not list(tmp_path.parent.glob("*.png"))


def test_what_holds_no_slides_is_told(stack, filled, local, tmp_path):
    _, fs = filled("slides")
    local.add("aa-Dataset-slides", "DATASET_other/README", archive.Bytes(b"x"))
    with pytest.raises(DatasetError, match="holds several datasets"):
        run(stack, fs, "aa-Dataset-slides", tmp_path / "work")
