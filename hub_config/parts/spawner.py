"""What a user's notebook pod is like."""

from __future__ import annotations

from typing import Any

from parts.values import Values


def configure(c: Any, values: Values) -> None:
    """Set up the spawner from the values below ``singleuser``."""
    c.JupyterHub.spawner_class = "cytomine_spawner.CytomineSpawner"
    release = values.need("release.name", str, "the chart sets it")
    spawner = c.KubeSpawner
    # Not the hub's own, where KubeSpawner would put them: the rights to make pods are rights to all Secrets beside them.
    spawner.namespace = values.need("users.namespace", str, "the chart sets it")
    # The chart's NetworkPolicies select the notebooks by this label. It is not app.kubernetes.io/instance: Argo CD takes
    # that one for its own and deletes what it did not make, users' volumes included.
    ours = {"cytomine-spawner.org/hub": release}
    spawner.extra_labels = {**values.get("singleuser.extraLabels", dict, {}), **ours}
    spawner.extra_annotations = values.get("singleuser.extraAnnotations", dict, {})
    spawner.storage_extra_labels = ours
    c.CytomineSpawner.token_in_secret = values.get("singleuser.tokenInSecret", bool, True)

    _images(c, values)
    _storage(c, values)

    c.Spawner.start_timeout = values.get("singleuser.startTimeout", int, 300)
    c.Spawner.http_timeout = values.get("singleuser.httpTimeout", int, 60)
    c.Spawner.default_url = values.get("singleuser.defaultUrl", str, "/lab")
    c.Spawner.environment = values.get("singleuser.extraEnv", dict, {})
    for trait, path, kind in (
        ("node_selector", "singleuser.nodeSelector", dict),
        ("tolerations", "singleuser.tolerations", list),
        ("node_affinity_required", "singleuser.nodeAffinityRequired", list),
        ("priority_class_name", "singleuser.priorityClassName", str),
        ("image_pull_policy", "singleuser.imagePullPolicy", str),
        ("image_pull_secrets", "imagePullSecrets", list),
    ):
        value = values.get(path, kind, kind())
        if value:
            setattr(spawner, trait, value)


def _images(c: Any, values: Values) -> None:
    """The choices of the options form; what is not given stays the spawner's default."""
    images = values.get("singleuser.images", list, [])
    sizes = values.get("singleuser.sizes", list, [])
    if not images:
        reference = values.need(
            "singleuser.image",
            str,
            "set singleuser.image.name and singleuser.image.tag, or singleuser.images",
        )
        images = [{"name": "default", "display_name": "JupyterLab", "image": reference, "default": True}]
    c.CytomineSpawner.notebook_images = images
    if sizes:
        c.CytomineSpawner.notebook_sizes = sizes


def _storage(c: Any, values: Values) -> None:
    """A volume a user for the home folder, and the administrator's further volumes."""
    spawner = c.KubeSpawner
    volumes: dict[str, Any] = {}
    mounts: dict[str, Any] = {}
    if values.get("singleuser.storage.enabled", bool, True):
        spawner.storage_pvc_ensure = True
        spawner.storage_capacity = values.need("singleuser.storage.capacity", str, "give a size such as 10Gi")
        spawner.storage_access_modes = values.get("singleuser.storage.accessModes", list, ["ReadWriteOnce"])
        storage_class = values.get("singleuser.storage.storageClassName", str, "")
        if storage_class:
            spawner.storage_class = storage_class
        home = values.get("singleuser.storage.homeMountPath", str, "/home/jovyan")
        volumes["home"] = {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}
        mounts["home"] = {"name": "home", "mountPath": home}
    for volume in values.get("singleuser.extraVolumes", list, []):
        volumes[f"extra-{volume['name']}"] = volume
    for number, mount in enumerate(values.get("singleuser.extraVolumeMounts", list, [])):
        mounts[f"extra-{number:03}"] = mount
    spawner.volumes = volumes
    spawner.volume_mounts = mounts
