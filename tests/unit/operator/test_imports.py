"""The import of datasets: the Job and its door, when it is due, and the sentence that a person reads."""

import asyncio
import base64
from datetime import datetime, timedelta, timezone

import pytest
from traitlets import TraitError

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.cluster.client import KubeError
from cytomine_spawner.common.redact import REMOVED
from cytomine_spawner.datasets import importer
from cytomine_spawner.operator import imports, observe
from cytomine_spawner.operator.apply import Applier
from cytomine_spawner.operator.children import Children
from cytomine_spawner.operator.diagnose import Patience
from cytomine_spawner.operator.lastwords import LastWords
from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import FailedDataset, Import, Stack, StackSpec, StackStatus
from cytomine_spawner.stack.rights import Person
from cytomine_spawner.stack.state import can_retry
from cytomine_spawner.web.present import view

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)
VOLUME = {"persistentVolumeClaim": {"claimName": "slides", "readOnly": True}}
DATASETS = [{"name": "colon", "title": "Colon biopsies"}, {"name": "skin"}, {"name": "--help"}]


def offering(**changes):
    return StackSettings(namespace="ns", **{"datasets": DATASETS, "dataset_volume": VOLUME, **changes})


def a_stack(*names, status=None, **spec) -> Stack:
    served = {
        "started_at": NOW - timedelta(minutes=2),
        "ready_at": NOW - timedelta(minutes=1),
        "phase": "Ready",
    }
    made = model.new_stack("ns", StackSpec(owner="ada", datasets=names, **spec))
    return made.replace(uid="uid-1", status=StackStatus(**{**served, **(status or {})}))


def objects(names=("colon",), run="1", settings=None):
    made = render.render(a_stack(*names), settings or offering(), Import(names, run))
    return {
        o["kind"]: o for o in made if o["metadata"]["labels"]["app.kubernetes.io/component"] == "datasets"
    }


# -- the objects ------------------------------------------------------------------------------------------


def test_without_an_import_nothing_of_it_is_there():
    made = render.render(a_stack("colon"), offering())
    assert not [o for o in made if "datasets" in o["metadata"]["name"]]


def test_the_job_may_nothing_but_read_the_datasets_and_the_keys():
    job = objects()["Job"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "fsGroup" not in pod["securityContext"], "it would change the owner of the administrator's files"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} == set(container["resources"])
    mounts = {m["name"]: m for m in container["volumeMounts"]}
    assert {name for name, mount in mounts.items() if mount.get("readOnly")} == {"connection", "datasets"}
    assert set(mounts) == {"connection", "datasets", "tmp"}
    volumes = {v.pop("name"): v for v in pod["volumes"]}
    assert volumes["datasets"] == VOLUME
    assert volumes["connection"]["secret"]["secretName"] == "cm-ada-connection"
    assert job["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert job["spec"]["backoffLimit"] <= 3
    assert job["spec"]["activeDeadlineSeconds"] == 24 * 3600
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_job_reaches_only_the_gateways_internal_port_and_names():
    made = objects()
    pods = {"app.kubernetes.io/instance": "cm-ada", "app.kubernetes.io/managed-by": "cytomine-stacks"}
    assert made["NetworkPolicy"]["spec"] == {
        "podSelector": {"matchLabels": {**pods, "app.kubernetes.io/component": "datasets"}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [
            {
                "to": [{"podSelector": {"matchLabels": {**pods, "app.kubernetes.io/component": "gateway"}}}],
                "ports": [{"port": 8081}],
            }
        ],
    }
    labels = made["Job"]["spec"]["template"]["metadata"]["labels"]
    assert made["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert not {"hub.jupyter.org/username", "component"} & set(labels)


def test_the_gateway_lets_the_import_in_where_datasets_are_offered_and_only_at_the_internal_port():
    def rules(settings):
        made = render.render(a_stack(), settings)
        (policy,) = [
            o for o in made if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == "cm-ada-gateway"
        ]
        return [r for r in policy["spec"]["ingress"] if "'datasets'" in str(r["from"])]

    assert [r["ports"] for r in rules(offering())] == [[{"port": "internal"}]]
    assert not rules(StackSettings(namespace="ns"))


def test_each_try_and_each_dataset_has_a_job_of_its_own_with_a_name_that_fits():
    names = {
        objects(*args)["Job"]["metadata"]["name"]
        for args in ((("colon",), "1"), (("colon",), "2"), (("skin",), "1"))
    }
    assert len(names) == 3
    both = render.render(a_stack("colon", "skin"), offering(), Import(("colon", "skin"), "1"))
    jobs = [o for o in both if o["kind"] == "Job"]
    assert {j["metadata"]["name"] for j in jobs} == names - {objects(run="2")["Job"]["metadata"]["name"]}
    assert [o["spec"]["template"]["spec"]["containers"][0]["command"][-1] for o in jobs] == ["colon", "skin"]
    assert len([o for o in both if o["metadata"]["name"] == "cm-ada-datasets"]) == 1, "one door for all"
    assert objects()["Job"]["metadata"]["name"] == objects()["Job"]["metadata"]["name"]
    long = model.new_stack("ns", StackSpec(owner="x" * 255, server_name="y" * 255))
    made = render.render(long, offering(), Import(("colon",), "1"))
    (job,) = [o for o in made if o["kind"] == "Job"]
    # A pod's name has six characters more.
    assert len(job["metadata"]["name"]) <= 57


def test_a_dataset_whose_name_looks_like_a_switch_is_a_name():
    command = objects(("--help",))["Job"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[-2:] == ["--", "--help"]


REMOTE = {"name": "far", "url": "s3://slides/DATASET_far", "secret": "slides"}


def test_a_dataset_at_a_url_has_a_job_with_its_credentials_as_files_and_a_way_to_it():
    settings = offering(datasets=[*DATASETS, REMOTE, {**REMOTE, "name": "open", "secret": ""}])
    made = render.render(a_stack("far", "open", "colon"), settings, Import(("far", "open", "colon"), "1"))
    jobs = {
        o["spec"]["template"]["spec"]["containers"][0]["command"][-1]: o for o in made if o["kind"] == "Job"
    }
    pod = jobs["far"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][4:] == [
        "-m",
        "cytomine_spawner.datasets.sources",
        "--connection=/var/run/cytomine",
        "--options=/var/run/options",
        "--url=s3://slides/DATASET_far",
        "--",
        "far",
    ]
    assert not container.get("env")
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["options"] == {"name": "options", "secret": {"secretName": "slides", "defaultMode": 0o444}}
    assert volumes["tmp"] == {"name": "tmp", "emptyDir": {}}
    assert "datasets" not in volumes
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "fsGroup" not in pod["securityContext"]
    other = {v["name"]: v for v in jobs["open"]["spec"]["template"]["spec"]["volumes"]}
    assert other["options"] == {"name": "options", "emptyDir": {}}
    doors = {o["metadata"]["name"]: o["spec"] for o in made if o["kind"] == "NetworkPolicy"}
    assert len([name for name in doors if name.endswith(("-sources", "-datasets"))]) == 2
    way = doors["cm-ada-sources"]
    chosen = way["podSelector"]["matchLabels"].items()
    assert chosen <= jobs["far"]["spec"]["template"]["metadata"]["labels"].items()
    assert not chosen <= jobs["colon"]["spec"]["template"]["metadata"]["labels"].items()
    assert way["egress"][1] == {"to": settings.dataset_peers, "ports": [{"port": 443}]}
    assert "10.0.0.0/8" in settings.dataset_peers[0]["ipBlock"]["except"]


def test_a_fault_of_the_dataset_itself_ends_its_job_at_the_first_try():
    job = objects()["Job"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert rule["onExitCodes"]["values"] == [importer.FAULT]
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_an_administrator_changes_the_job_as_any_other_object():
    patch = {"spec": {"template": {"spec": {"securityContext": {"supplementalGroups": [7]}}}}}
    settings = offering(overrides=[{"kind": "Job", "name": "datasets", **patch}], node_selector={"a": "b"})
    render.check(settings)
    pod = objects(settings=settings)["Job"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["supplementalGroups"] == [7]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["nodeSelector"] == {"a": "b"}


# -- the settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"title": "a"}], r"StackSettings.datasets\[0\].name: Field required"),
        ([{"name": "a"}, {"name": "a"}], "the name 'a' is used more than once"),
        ([{"name": "a", "size": 1}], r"datasets\[0\].size"),
        (
            [{"name": "a", "url": "/mnt/a"}],
            r"datasets\[0\]: '/mnt/a' is no address of a folder: it looks like s3://",
        ),
        ([{"name": "a", "url": "s3:///a"}], "is no address of a folder"),
        ([{"name": "a", "url": "https://host/a?key=hush"}], "'https://host/a' is no address of a folder"),
        (
            [{"name": "a", "url": "https://me:hush@host/a"}],
            "https://host/a is given with credentials: put them into a Secret",
        ),
        ([{"name": "a", "secret": "s"}], "secret is of no use without url"),
    ],
)
def test_a_wrong_entry_is_named(entries, said):
    with pytest.raises(TraitError, match=said):
        StackSettings(datasets=entries)


def test_datasets_without_a_volume_are_refused_at_the_start():
    with pytest.raises(ValueError, match="dataset_volume does not say where they are"):
        render.check(offering(dataset_volume={}))
    render.check(offering(datasets=[REMOTE], dataset_volume={}))


# -- when it is due ---------------------------------------------------------------------------------------


RUN = f"{NOW - timedelta(minutes=2)} 0"


def fault(name, message="It is broken. Mend it and try again.", run=RUN):
    return FailedDataset(name=name, message=message, run=run)


def test_datasets_take_turns_once_the_stack_serves_and_until_all_are_in():
    settings = offering()
    assert imports.due(a_stack("colon", "skin"), settings).names == ("colon",)
    assert imports.due(
        a_stack("colon", "skin", status={"imported_datasets": ("colon",)}), settings
    ).names == ("skin",)
    for stack in (
        a_stack(),
        a_stack("colon", status={"imported_datasets": ("colon",)}),
        a_stack("colon", status={"ready_at": None, "phase": "Starting"}),
        a_stack("colon", desired_state="Hibernated"),
        a_stack("unknown"),
    ):
        assert imports.due(stack, settings) is None
    # A database that starts anew ends no import.
    assert imports.due(a_stack("colon", status={"phase": "Degraded"}), settings)


def test_one_that_is_not_offered_or_failed_holds_up_no_other():
    settings = offering()
    assert imports.due(a_stack("unknown", "skin"), settings).names == ("skin",)
    failed = {"failed_datasets": (fault("colon"),)}
    # The Job of one that failed stays, for its log.
    assert imports.due(a_stack("colon", "skin", status=failed), settings).names == ("colon", "skin")
    assert imports.due(a_stack("colon", status=failed), settings).names == ("colon",)


@pytest.mark.parametrize("change", [{"retry": 1}, {"status": {"started_at": NOW}}])
def test_what_failed_has_its_turn_again_in_another_try(change):
    status = {
        "failed_datasets": (fault("colon"),),
        "imported_datasets": ("skin",),
        **change.pop("status", {}),
    }
    again = imports.due(a_stack("colon", "skin", status=status, **change), offering())
    assert again.names == ("colon",)
    assert again.run != RUN


def test_another_start_and_a_retry_are_another_try():
    settings = offering()
    first = imports.due(a_stack("colon"), settings)
    assert first == imports.due(a_stack("colon"), settings)
    assert first != imports.due(a_stack("colon", retry=1), settings)
    assert first != imports.due(a_stack("colon", status={"started_at": NOW}), settings)


# -- the sentence -----------------------------------------------------------------------------------------


class World:
    """A stack that imports: what is known of its Job and pods, and what the Job's log says last."""

    def __init__(self, stack=None, log="", settings=None):
        self.settings = settings or offering(dataset_deadline=5400)
        self.stack = stack or a_stack("colon")
        self.children = Children(None, lambda _: None)
        self.text = log
        applier = Applier(None, self.children, self.settings)
        self.due = imports.due(self.stack, self.settings)
        plan = applier.plan(self.stack, self.due)
        # Of the dataset whose turn it is.
        self.job = next((p.name for p in reversed(plan) if p.kind == "Job"), "")
        self.listed = []
        self.secrets, self.secrets_asked, self.silent = [], 0, False
        words = LastWords(self, self.settings)
        self.imports = imports.Imports(self, self.children, self.settings, applier, Patience(), words)

    async def log(self, pod, *, lines):
        if self.text is None:
            raise KubeError(500, "", "no log")
        return self.text

    async def list(self, kind, *, labels):
        if kind == "Secret":
            assert labels.startswith(f"app.kubernetes.io/instance={self.stack.name},")
            self.secrets_asked += 1
            if self.silent:
                raise KubeError(503, "", "no answer")
            return self.secrets, "1"
        assert (kind, labels) == ("Pod", f"batch.kubernetes.io/job-name={self.job}")
        return self.listed, "1"

    def put(self, kind, name, **parts):
        labels = model.child_labels(self.stack.name, "datasets")
        meta = {"name": name, "uid": name, "labels": labels, "creationTimestamp": model.format_time(NOW)}
        obj = {"metadata": meta, "spec": {}, **parts}
        self.children.put(kind, obj)
        if kind == "Pod":
            self.listed.append(obj)
        return self

    def ended(self, how, reason=""):
        return self.put(
            "Job", self.job, status={"conditions": [{"type": how, "status": "True", "reason": reason}]}
        )

    def pod(self, phase="Running", **state):
        state = state or {"running": {"startedAt": model.format_time(NOW)}}
        status = {"name": "datasets", "restartCount": 0, "state": state}
        spec = {"nodeName": "n1", "containers": [{"name": "datasets", "image": "registry/stacks:1"}]}
        return self.put(
            "Pod", f"{self.job}-x7f2p", spec=spec, status={"phase": phase, "containerStatuses": [status]}
        )

    def judge(self):
        status, again = asyncio.run(self.imports.judge(self.stack, self.due, NOW))
        found = status.condition(model.DATASETS_IMPORTED)
        return status, found, again


def failed(message="", reason="Error", code=1):
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def test_a_stack_without_datasets_says_nothing_of_them():
    status, found, _ = World(a_stack()).judge()
    assert found is None
    assert status.conditions == ()


def test_a_running_import_says_how_far_it_is_and_is_asked_again():
    line = "3 of 12 images and 70 annotations are in, annotating b.svs from b.geojson (10%) and uploading a.svs (40%)"
    world = World(log=f"{line}\n").put("Job", "").pod()
    _, found, again = world.judge()
    assert found.reason == "Importing"
    assert found.status == "False"
    assert found.message == f"Colon biopsies is being imported: {line}."
    assert again == NOW + timedelta(seconds=imports.PROGRESS_SECONDS)


def test_what_an_import_waits_for_is_told_whole_with_its_cure_and_without_secrets():
    line = (
        "1 of 12 images and 70 annotations are in, fetching a-slide-of-a-long-name.svs from the archive (12 GiB of 100 GiB and "
        "3 of 12 files so far) (40%), waiting for the archive: the hub gives no token at the moment (503): it is away; ask an "
        "administrator of the hub if it stays so; goes on trying until 14:02 UTC"
    )
    world = World(log=f"{line}\n").put("Job", "").pod()
    _, found, again = world.judge()
    assert found.message == f"Colon biopsies is being imported: {line}."
    assert again - NOW <= timedelta(minutes=1)
    assert view(world.stack.replace(status=world.judge()[0]), Person("ada")).datasets.message == found.message
    world = with_key(World(log=f"waiting for the archive: {KEY}\n")).put("Job", "").pod()
    assert KEY not in world.judge()[1].message


@pytest.mark.parametrize("log", ["", None])
def test_a_log_that_cannot_be_read_is_no_trouble(log):
    assert World(log=log).pod().judge()[1].message == "Colon biopsies is being imported."


def test_what_was_imported_is_written_down_and_the_next_look_is_at_once():
    status, found, again = World().ended("Complete").judge()
    assert status.imported_datasets == ("colon",)
    assert (found.reason, found.status) == ("Imported", "True")
    assert found.message == "Colon biopsies is in Cytomine."
    assert again == NOW, "the Job is to go"


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        (
            failed("1 of 2\nCytomine did not take a.svs. Mend it.\n"),
            "BackoffLimitExceeded",
            "Cytomine did not take a.svs. Mend it.",
        ),
        (failed("", "OOMKilled", 137), "BackoffLimitExceeded", "needs more memory than it may have"),
        (None, "BackoffLimitExceeded", "The cluster ended it. An administrator must look at it."),
        (None, "DeadlineExceeded", "it took more than 1.5 hours"),
    ],
)
def test_a_failure_has_its_sentence_and_may_be_tried_again(state, reason, said):
    world = World().ended("Failed", reason)
    if state:
        world.pod("Failed", **state)
    status, found, _ = world.judge()
    assert (found.reason, found.status) == ("Failed", "False")
    assert found.message.startswith("Colon biopsies could not be imported")
    assert said in found.message
    assert status.imported_datasets == ()
    assert [(f.name, f.run) for f in status.failed_datasets] == [("colon", RUN)]
    stack = world.stack.replace(status=status)
    assert can_retry(stack)
    assert imports.news(world.stack.status, status) == found
    assert imports.news(status, status) is None


def test_the_project_of_a_dataset_is_written_down_and_what_is_granted_no_more_is_not_called_in():
    done = "mock-colon: project 41, 2 images, 9 annotations; 1 MB/s"
    for log in (f"a line\n{done}\n", f"{done}\n{LEFT}.\n"):
        status, _, _ = World(log=log).ended("Complete").pod("Succeeded").judge()
        assert [(p.name, p.project) for p in status.dataset_projects] == [("colon", 41)]
    assert World(log="").ended("Complete").pod("Succeeded").judge()[0].dataset_projects == ()
    both = {"imported_datasets": ("colon", "skin"), "revoked_datasets": ("colon",)}
    found = World(a_stack("colon", "skin", status=both)).judge()[1]
    assert found.message == "skin is in Cytomine. Colon biopsies is not granted any more."
    found = World(a_stack("colon", status=both)).judge()[1]
    assert found.message == "Colon biopsies is not granted any more."


@pytest.mark.parametrize(
    "pretended",
    [
        "x\nLeft out: y\nx: project 7, 1 images, 1 annotations",
        "Left out: y: project 7, 1 images, 1 annotations",
    ],
)
def test_what_a_dataset_is_called_does_not_pass_for_its_project(pretended, capsys):
    importer.lines()(importer.Progress(2, 2, f"{pretended} is imported"))
    importer.told([importer.Imported(pretended, 41, 2, 9)])
    log = capsys.readouterr().out
    status, _, _ = World(log=log).ended("Complete").pod("Succeeded").judge()
    assert [p.project for p in status.dataset_projects] == [41]
    importer.told([importer.Imported(pretended, 41, 2, 9, (pretended,))])
    log = capsys.readouterr().out
    status, _, _ = World(log=log).ended("Complete").pod("Succeeded").judge()
    assert [p.project for p in status.dataset_projects] == [41]


def test_signs_that_are_not_seen_or_turn_a_line_around_are_not_in_what_is_said():
    """Whoever fills an archive names the files in it."""
    world = World(log="uploading a\u202egpj.b\x1b]0;title\x07c\u200bd\n").pod("Running")
    _, found, _ = world.judge()
    assert "uploading a gpj.b ]0;title c d" in found.message


LEFT = (
    "Left out: 2 of 30 annotations of a.geojson (feature 1: it crosses itself; feature 2: it has no geometry)"
)


def test_what_was_left_out_of_a_dataset_is_told_as_long_as_it_is_chosen():
    world = World(a_stack("colon", "skin"), log=f"{LEFT}.\n").ended("Complete").pod("Succeeded")
    status, found, _ = world.judge()
    assert [(n.name, n.message) for n in status.dataset_notes] == [("colon", f"{LEFT}.")]
    world = World(world.stack.replace(status=status), log="skin: project 5, 1 images, 3 annotations\n")
    status, found, _ = world.ended("Complete").pod("Succeeded").judge()
    assert (found.reason, found.status) == ("Imported", "True")
    assert found.message == f"Colon biopsies and skin are in Cytomine. Of Colon biopsies: l{LEFT[1:]}."
    _, found, _ = World(a_stack("colon", status=status.model_dump())).judge()
    assert found.message == f"Colon biopsies is in Cytomine. {LEFT}."
    status, found, _ = World(a_stack("skin", status=status.model_dump())).judge()
    assert found.message == "skin is in Cytomine."
    assert status.dataset_notes == ()


@pytest.mark.parametrize("log", ["", None, "colon: project 5, 2 images, 3 annotations\n"])
def test_an_import_that_left_out_nothing_has_no_note(log):
    status, found, _ = World(log=log).ended("Complete").pod("Succeeded").judge()
    assert found.message == "Colon biopsies is in Cytomine."
    assert status.dataset_notes == ()


def test_how_fast_an_import_went_is_for_the_administrator_to_read_when_its_job_is_gone(caplog):
    caplog.set_level("INFO")
    pace = f"colon: project 5, 2 images, 60 annotations; sent 60 annotations at 80 ms each by {KEY}"
    with_key(World(log=f"{pace}\n{LEFT}.\n")).ended("Complete").pod("Succeeded").judge()
    assert "60 annotations at 80 ms each" in caplog.text
    assert "Left out: 2 of 30" in caplog.text
    assert KEY not in caplog.text


def test_what_was_left_out_is_told_without_secrets():
    world = with_key(World(log=f"Left out: 1 of 2 annotations of {KEY}.geojson (x).\n"))
    status, found, _ = world.ended("Complete").pod("Succeeded").judge()
    assert f"1 of 2 annotations of {REMOVED}" in found.message
    assert KEY not in str(status)


KEY = "0b6f1c9e-5a0d-4f8e-9a53-6a0c2d1f7e44"


def with_key(world):
    world.secrets.append({"data": {"private-key": base64.b64encode(KEY.encode()).decode()}})
    return world


@pytest.mark.parametrize("phase", ["Failed", "ended"])
def test_the_last_words_of_an_import_hold_no_secret(phase):
    said = failed(f"1 of 2\nCytomine did not take {KEY} with token=abc. Mend it.\n")
    world = with_key(World()).pod("Failed", **said)
    if phase == "ended":
        world.ended("Failed", "BackoffLimitExceeded")
    status, found, _ = world.judge()
    assert f"Cytomine did not take {REMOVED} with token={REMOVED}" in found.message
    assert KEY not in str(status)


def test_how_far_an_import_is_is_said_without_secrets_which_are_read_once():
    world = with_key(World(log=f"step 3 with {KEY}\n")).pod()
    for _ in range(3):
        assert world.judge()[1].message == f"Colon biopsies is being imported: step 3 with {REMOVED}."
    assert world.secrets_asked == 1
    world = with_key(World(log="step 3\n")).pod()
    world.silent = True
    assert world.judge()[1].message == "Colon biopsies is being imported."


def test_last_words_wait_until_the_secrets_can_be_read():
    world = with_key(World()).pod("Failed", **failed("broken")).ended("Failed", "BackoffLimitExceeded")
    world.silent = True
    with pytest.raises(KubeError):
        world.judge()
    world.silent = False
    assert "broken" in world.judge()[1].message


def test_a_try_that_failed_is_said_while_the_next_one_is_on_its_way():
    found = World().pod("Failed", **failed("Cytomine did not answer.\n")).judge()[1]
    assert found.reason == "Importing"
    assert found.message == "Colon biopsies is being imported. It is tried again. Cytomine did not answer."


def test_the_others_have_their_turn_when_one_fails_and_nothing_is_tried_again_by_itself():
    world = World(a_stack("colon", "skin", "--help")).ended("Failed", "PodFailurePolicy")
    world.pod("Failed", **failed("a.geojson is no GeoJSON. Mend it and try again.\n", code=65))
    status, found, again = world.judge()
    colon = "Colon biopsies could not be imported. a.geojson is no GeoJSON. Mend it and try again."
    assert (found.reason, again) == ("Importing", NOW)
    assert found.message == f"skin is being imported. --help follows. {colon}"
    world = World(world.stack.replace(status=status)).ended("Complete")
    assert world.due.names == ("colon", "skin")
    status, found, again = world.judge()
    assert status.imported_datasets == ("skin",)
    assert found.message == f"--help is being imported. {colon}"
    world = World(world.stack.replace(status=status)).ended("Complete")
    status, found, again = world.judge()
    assert (found.reason, found.status) == ("Failed", "False")
    assert found.message == f"{colon} skin and --help are in Cytomine."
    assert imports.due(world.stack.replace(status=status), world.settings).names == ("colon",)
    world = World(world.stack.replace(status=status)).ended("Failed", "PodFailurePolicy")
    assert world.judge()[0] == status, "a look changes nothing"
    assert world.judge()[2] is None, "nobody looks again"


def test_a_failure_that_is_over_after_another_try_is_not_told_any_more():
    stack = a_stack("colon", status={"failed_datasets": (fault("colon"),)}, retry=1)
    world = World(stack).pod()
    status, found, _ = world.judge()
    assert found.message == "Colon biopsies is being imported."
    assert status.failed_datasets == ()
    status, found, _ = World(stack).ended("Complete").judge()
    assert found.message == "Colon biopsies is in Cytomine."


def test_of_many_failures_the_first_are_told_with_their_causes():
    names = [f"d{n}" for n in range(30)]
    settings = offering(datasets=[{"name": n} for n in names])
    told = tuple(fault(n, f"{n} could not be imported. " + "x" * 600) for n in names)
    world = World(a_stack(*names, status={"failed_datasets": told}), settings=settings)
    _, found, _ = world.judge()
    assert found.message.endswith("could not be imported either.")
    assert len(found.message) < 3000


def test_an_image_that_cannot_be_fetched_is_named():
    state = {"waiting": {"reason": "ErrImagePull", "message": "manifest not found"}}
    found = World().pod("Pending", **state).judge()[1]
    assert "Import of datasets cannot start: its image registry/stacks:1 cannot be fetched" in found.message


def test_pods_that_a_quota_forbids_are_named():
    world = World()
    text = "pods is forbidden: exceeded quota: q, requested: pods=1, used: pods=9, limited: pods=9"
    world.children.warnings.add(observe.Warning("Job", world.job, "FailedCreate", text, 1, NOW))
    assert "the cluster's quota is used up" in world.judge()[1].message


@pytest.mark.parametrize(
    ("stack", "reason", "said"),
    [
        (
            a_stack("colon", "skin", status={"ready_at": None}),
            "Waiting",
            "Colon biopsies and skin are imported as soon as",
        ),
        (
            a_stack("colon", desired_state="Hibernated"),
            "Waiting",
            "Colon biopsies is imported at the next start.",
        ),
        (a_stack("lung"), "NotOffered", "The dataset lung is not offered here."),
        (a_stack("skin", status={"imported_datasets": ("skin",)}), "Imported", "skin is in Cytomine."),
    ],
)
def test_what_is_not_under_way_says_why(stack, reason, said):
    found = World(stack).judge()[1]
    assert found.reason == reason
    assert said in found.message


def test_an_unchanged_state_keeps_its_time():
    world = World()
    old = world.judge()[0]
    later = world.stack.replace(status=old)
    status, _ = asyncio.run(world.imports.judge(later, world.due, NOW + timedelta(hours=1)))
    assert status == old


def test_the_view_of_a_stack_has_it():
    status = World().ended("Complete").judge()[0]
    person = Person("ada")
    shown = view(a_stack("colon").replace(status=status), person).datasets
    assert (shown.reason, shown.look) == ("Imported", "good")
