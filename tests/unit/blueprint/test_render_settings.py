"""What the administrator's settings make of a stack's objects, and which are refused."""

import pytest
from traitlets import TraitError

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from tests.support.rendering import ALL_EXTRAS, demo, env, everything, find, objects, pods


def test_images_come_from_the_traits_then_from_the_mirror():
    settings = everything(
        images={"core": "example.org/core@sha256:1"},
        image_names={"redis:7.2": "mirror.example.org/redis:7.2"},
    )
    objs = objects(settings)
    assert find(objs, "Deployment", "core")["spec"]["template"]["spec"]["containers"][0]["image"].endswith(
        "sha256:1"
    )
    cache = find(objs, "Deployment", "pims-cache")["spec"]["template"]["spec"]["containers"][0]
    assert cache["image"] == "mirror.example.org/redis:7.2"


def test_images_without_a_digest_are_known():
    pinned = StackSettings(images={"core": f"c@sha256:{'0' * 64}"}, dataset_image=f"d@sha256:{'0' * 64}")
    assert "gateway: nginx:1.30" in pinned.unpinned
    assert not [text for text in pinned.unpinned if text.startswith(("core:", "datasets:"))]


def test_no_packaged_image_is_latest_or_names_a_registry():
    for image in everything().values.images.values():
        assert ":" in image
        assert not image.endswith(":latest")
        assert "." not in image.split("/")[0].split(":")[0]


def test_placement_and_pull_settings_reach_every_pod():
    settings = everything(
        node_selector={"pool": "stacks"},
        tolerations=[{"key": "stacks", "operator": "Exists"}],
        priority_class="low",
        image_pull_secrets=["login"],
        image_pull_policy="Always",
    )
    for pod in pods(objects(settings)):
        assert pod["nodeSelector"] == {"pool": "stacks"}
        assert pod["tolerations"] == [{"key": "stacks", "operator": "Exists"}]
        assert pod["priorityClassName"] == "low"
        assert pod["imagePullSecrets"] == [{"name": "login"}]
        assert {c["imagePullPolicy"] for c in pod["containers"]} == {"Always"}


def test_storage_classes_are_by_component_with_a_default():
    objs = objects(everything(storage_classes={"default": "slow", "postgis": "fast"}))
    assert find(objs, "PersistentVolumeClaim", "postgis")["spec"]["storageClassName"] == "fast"
    assert find(objs, "PersistentVolumeClaim", "images")["spec"]["storageClassName"] == "slow"
    assert "storageClassName" not in find(objects(), "PersistentVolumeClaim", "images")["spec"]


def test_env_is_added_changed_and_removed():
    values = env(objects(everything(env={"core": {"SERVER_ID": "x", "NEW": "1", "SAM_URL": None}})), "core")
    assert values["SERVER_ID"] == "x"
    assert values["NEW"] == "1"
    assert "SAM_URL" not in values


def test_overrides_merge_by_kind_and_name():
    settings = everything(
        overrides=[
            {
                "kind": "Deployment",
                "name": "pims",
                "metadata": {"annotations": {"note": "x"}},
                "spec": {
                    "template": {
                        "spec": {
                            "nodeSelector": {"disk": "fast"},
                            "initContainers": [{"name": "folders", "$patch": "delete"}],
                            "containers": [
                                {"name": "pims", "livenessProbe": None},
                                {"name": "extra", "image": "e:1"},
                            ],
                        }
                    }
                },
            }
        ]
    )
    before, after = objects(), objects(settings)
    pod = find(after, "Deployment", "pims")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["initContainers"] == []
    assert [c["name"] for c in pod["containers"]] == ["pims", "extra"]
    assert "livenessProbe" not in pod["containers"][0]
    assert pod["containers"][0]["image"] == "cytomine/pims:ba695c809"
    # what an override adds is as restricted as all else
    assert pod["containers"][1]["securityContext"]["readOnlyRootFilesystem"] is True
    others = [o for o in before if o["metadata"]["name"] != "cm-ada-pims"]
    assert others == [o for o in after if o["metadata"]["name"] != "cm-ada-pims"]


def test_an_override_that_names_nothing_is_found_at_the_start():
    with pytest.raises(ValueError, match="'pimz', which no stack has"):
        render.check(everything(overrides=[{"kind": "Deployment", "name": "pimz"}]))
    render.check(everything())
    render.check(demo())


def test_a_value_file_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "v.yaml").write_text("image: {core: x}")
    with pytest.raises(ValueError, match="may have only the keys"):
        _ = StackSettings(values_files=[str(tmp_path / "v.yaml")]).values


@pytest.mark.parametrize(
    "url", ["https://stacks.example.org/{stack}", "https://x-{stack}.example.org", "nonsense"]
)
def test_a_stack_must_have_a_host_of_its_own(url):
    with pytest.raises(TraitError, match="host begins with"):
        StackSettings(stack_url=url)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"size": "XL"}, "The size XL is not offered here. Choose one of S, M, L."),
        ({"components": ["app-engine"]}, "The component app-engine is not offered here"),
    ],
)
def test_what_is_not_offered_is_said_in_a_sentence(spec, sentence):
    with pytest.raises(render.Invalid, match=sentence):
        objects(StackSettings(), **spec)


def test_the_app_engine_is_refused_until_it_is_set_up():
    with pytest.raises(render.Invalid, match="not set up here"):
        objects(StackSettings(allowed_components=ALL_EXTRAS), components=["app-engine"])
