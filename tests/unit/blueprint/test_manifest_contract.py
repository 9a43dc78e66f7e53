"""What Cytomine's own deployments give each component, and what the stacks' manifests give it.

The table below was read from upstream at the tested commit: its compose file, its chart, its images' build files, and the
settings that its programs read. A variable, port or folder that a manifest has and the table does not know fails, and so
does one that is not set as the table says: a new generation of Cytomine begins with this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from cytomine_spawner.blueprint import render
from cytomine_spawner.stack import components
from tests.support.rendering import ALL_EXTRAS, everything, objects

URL = "https://cm-ada.stacks.example.org"
ISSUER = "https://hub.example.org/services/cytomine/cm-ada"
INTERNAL = "http://stacks:8000/services/cytomine/cm-ada"
REALM = "/iam/realms/cytomine"
USER = 20000


@dataclass(frozen=True)
class Row:
    """A variable: what upstream gives, and what the manifest gives (None: it is left out), and why that differs."""

    name: str
    upstream: str
    ours: str | None
    why: str = ""


def same(name: str, value: str) -> Row:
    """Upstream's compose file or chart gives this value, and so does the manifest."""
    return Row(name, value, value)


def other(name: str, upstream: str, ours: str, why: str) -> Row:
    """The manifest gives another value."""
    return Row(name, upstream, ours, why)


def left(name: str, upstream: str, why: str) -> Row:
    """The manifest leaves it out."""
    return Row(name, upstream, None, why)


SECRET, PLACE, UNREAD = "of the stack's Secret", "the stack's own name", "nothing reads it"
OWN, DEFAULT = "upstream does not set it", "the program's default is the same"
LOCAL_DISK = "the root file system is read-only"
HEAP = "the heap follows the container's limit"
NO_MAIL = "stacks send no mail"
POSTGIS = [
    other("POSTGIS_HOST", "postgis", "cm-ada-postgis", PLACE),
    same("POSTGIS_PORT", "5432"),
    same("POSTGIS_DB_NAME", "docker"),
    same("POSTGIS_USER", "docker"),
    other("POSTGIS_PASS", "password", "secret postgis-password", SECRET),
]
IMAGE_KEYS = [
    other("IMAGE_SERVER_PUBLIC_KEY", "fixed", "secret image-server-public-key", SECRET),
    other("IMAGE_SERVER_PRIVATE_KEY", "fixed", "secret image-server-private-key", SECRET),
]
MEILISEARCH = [
    other("MEILISEARCH_URL", "http://meilisearch:7700", "http://cm-ada-meilisearch:7700", PLACE),
    other("MEILISEARCH_KEY", "fixed", "secret meilisearch-key", SECRET),
]

TABLE: dict[str, list[Row]] = {
    "postgis": [
        same("POSTGRES_USER", "docker"),
        same("POSTGRES_DB", "docker"),
        other("POSTGRES_PASSWORD", "password", "secret postgis-password", SECRET),
        other("PGDATA", "", "/var/lib/postgresql/data/pgdata", "a new volume may hold lost+found"),
    ],
    "mongo": [
        same("MONGO_INITDB_ROOT_USERNAME", "mongoadmin"),
        other("MONGO_INITDB_ROOT_PASSWORD", "password", "secret mongo-password", SECRET),
        left("MONGO_INIT_DATABASE", "cytomine", f"{UNREAD}: the image's variable has another name"),
        other("HOME", "", "/tmp", LOCAL_DISK),
    ],
    "repository": [
        *POSTGIS,
        *IMAGE_KEYS,
        other("ADMIN_EMAIL", "", "admin@example.org", "else the administrator has upstream's own address"),
        other("JAVA_TOOL_OPTIONS", "", "-XX:MaxRAMPercentage=60", HEAP),
    ],
    "core": [
        *POSTGIS,
        *IMAGE_KEYS,
        *MEILISEARCH,
        other("MONGO_HOST", "mongo", "cm-ada-mongo", PLACE),
        same("MONGO_PORT", "27017"),
        same("MONGO_DB_NAME", "cytomine"),
        same("MONGO_USER", "mongoadmin"),
        other("MONGO_PASS", "password", "secret mongo-password", SECRET),
        other("PORT", "", "8080", "the default, said"),
        other("SERVER_URL", "http://127.0.0.1:8080", URL, PLACE),
        other("SERVER_ID", "fixed", "cm-ada", PLACE),
        other("REPOSITORY_URL", "http://repository:8081/", "http://cm-ada-repository:8081", PLACE),
        other("PIMS_URL", "http://pims:5000", "http://cm-ada-pims:5000", PLACE),
        other("CBIR_URL", "http://cbir:6000", "http://cm-ada-cbir:6000", PLACE),
        other("SAM_URL", "http://sam:8000", "http://cm-ada-sam:8000", PLACE),
        same("APPENGINE_ENABLED", "true"),
        other("APPENGINE_API_URL", "http://app-engine:8080", "http://cm-ada-app-engine:8080", PLACE),
        same("APPENGINE_API_BASE_PATH", "/app-engine/v1/"),
        other("IAM_URL", "http://iam:8100", INTERNAL, "the stack service is the issuer"),
        other("IAM_EXTERNAL_URL", "http://127.0.0.1:8100", ISSUER, "the stack service is the issuer"),
        other("SPRING_SECURITY_OAUTH2_RESOURCESERVER_JWT_ISSUER_URI", "", ISSUER + REALM, OWN),
        other(
            "SPRING_SECURITY_OAUTH2_RESOURCESERVER_JWT_JWK_SET_URI",
            "",
            f"{INTERNAL}{REALM}/protocol/openid-connect/certs",
            OWN,
        ),
        other("KEYCLOAK_ADMIN", "admin", "none", "there is no Keycloak"),
        other("KEYCLOAK_ADMIN_PASSWORD", "fixed", "none", "there is no Keycloak"),
        other("JWT_SECRET", "fixed", "secret jwt-secret", SECRET),
        same("STORAGE_PATH", "/data/images"),
        other("ANNOTATION_MAX_POINTS", "", "200", "the default, said: the library counts on it"),
        other("JAVAMELODY_PATH", "/javamelody-core", "/tmp/javamelody", LOCAL_DISK),
        left("JAVAMELODY_USER", "admin", "JavaMelody is off"),
        left("JAVAMELODY_PASS", "fixed", "JavaMelody is off"),
        left("JAVAMELODY_ENABLED", "", "JavaMelody is off"),
        other("JAVA_TOOL_OPTIONS", "", "-XX:MaxRAMPercentage=60", HEAP),
        left("SMTP_HOST", "mail.smtp", NO_MAIL),
        left("SMTP_PORT", "587", NO_MAIL),
        left("SMTP_USER", "user", NO_MAIL),
        left("SMTP_PASS", "", NO_MAIL),
        left("SMTP_PASSWORD", "random", UNREAD),
        left("SMTP_AUTH", "", NO_MAIL),
        left("SMTP_STARTTLS", "", NO_MAIL),
        left("DEFAULT_FROM_EMAIL", "", NO_MAIL),
        left(
            "ADMIN_EMAIL",
            "admin@cytomine.org",
            "core only demands that it is not empty, and the default is not",
        ),
        *(
            left(name, "random", "the accounts that it was for are gone")
            for name in (
                "ADMIN_PASSWORD",
                "ADMIN_PUBLIC_KEY",
                "ADMIN_PRIVATE_KEY",
                "SUPER_ADMIN_PUBLIC_KEY",
                "SUPER_ADMIN_PRIVATE_KEY",
            )
        ),
        left("INSTANCE_HOST_WEBSITE_URL", "core's address", "only mails name it"),
        left("INSTANCE_HOST_SUPPORT_MAIL", "None", "only mails name it"),
        left("INSTANCE_HOST_PHONE_NUMBER", "None", "only mails name it"),
        left("REVERSE_PROXY_URL", "core's address", UNREAD),
        left("URL_CORE", "core's address", UNREAD),
        left("DEFAULT_LANGUAGE", "", DEFAULT),
        left("TOKEN_VALIDITY_IN_SECONDS", "", DEFAULT),
        left("TOKEN_VALIDITY_IN_SECONDS_REMEMBER_ME", "", DEFAULT),
        left("TOKEN_VALIDITY_IN_SECONDS_SHORT_TERM", "", DEFAULT),
    ],
    "pims": [
        same("API_BASE_PATH", "/ims"),
        same("ROOT", "/data/images"),
        same("DATASET_PATH", "/dataset"),
        same("WRITING_PATH", "/data/pims/tmp"),
        other("PENDING_PATH", "/tmp/uploaded", "/data/pims/pending", "an upload is moved, and not copied"),
        other("TMPDIR", "", "/data/pims/tmp", "uploads are spooled there, and not on the node's disk"),
        other("INTERNAL_URL_CORE", "http://core:8080", "http://cm-ada-core:8080", PLACE),
        other("CYTOMINE_PUBLIC_KEY", "fixed", "secret image-server-public-key", SECRET),
        other("CYTOMINE_PRIVATE_KEY", "fixed", "secret image-server-private-key", SECRET),
        same("CACHE_ENABLED", "true"),
        other("CACHE_URL", "redis://pims-cache:6379", "redis://cm-ada-pims-cache:6379", PLACE),
        same("TASK_QUEUE_ENABLED", "false"),
        *MEILISEARCH,
        same("DEFAULT_ANNOTATION_ORIGIN", "LEFT_TOP"),
        left("DEFAULT_IMAGE_SIZE_SAFETY_MODE", "SAFE_REJECT", DEFAULT),
        same("OUTPUT_SIZE_LIMIT", "10000"),
        same("LOG_CONFIG_FILE", "/app/logging.yml"),
        other("WEB_CONCURRENCY", "8", "2", "follows the stack's size"),
        left("MAX_WORKERS", "1", "counts only without WEB_CONCURRENCY"),
        left("MAX_REQUESTS", "100000", "the chart's 0 is the default"),
        same("MPLCONFIGDIR", "/tmp"),
        left("PORT", "5000", "the image sets it"),
        left("MODULE_NAME", "pims.application", "the image sets it"),
        left("DEBUG", "true", "for developers"),
        left("PIMS_URL", "pims", UNREAD),
        left("POSTGRES_DB", "docker", UNREAD),
        left("POSTGRES_USER", "docker", UNREAD),
        left("POSTGRES_PASSWORD", "password", UNREAD),
    ],
    "web-ui": [
        other("CORE_URL", "http://127.0.0.1:8080/api", f"{URL}/api", PLACE),
        other("IAM_URL", f"http://127.0.0.1:8100{REALM}", ISSUER + REALM, PLACE),
        other("PIMS_URL", "http://127.0.0.1:5001/ims", f"{URL}/ims", PLACE),
        other("APPENGINE_URL", "http://127.0.0.1:8082", f"{URL}/app-engine", PLACE),
        other("CBIR_URL", "http://127.0.0.1:6000", f"{URL}/cbir", PLACE),
        other("SAM_URL", "http://127.0.0.1:8000", f"{URL}/sam", PLACE),
        left("APPENGINE_ENABLED", "true", f"{UNREAD}: the gateway sets the page's flag"),
        left("URL_CORE", "core's address", UNREAD),
        left("VERSIONS_CYTOMINE_COMMERCIAL", "2025.1", UNREAD),
    ],
    "cbir": [
        same("API_BASE_PATH", "/cbir"),
        other("HOST", "redis", "cm-ada-cbir-redis", PLACE),
        same("PORT", "6379"),
        left("DATA_PATH", "/data/cbir", "the chart's /data is the default"),
        left("DB", "0", DEFAULT),
        left("EXTRACTOR", "resnet", DEFAULT),
        left("NUM_THREADS", "4", DEFAULT),
        other("TORCHINDUCTOR_CACHE_DIR", "/.cache/torchinductor", "/tmp/torchinductor", LOCAL_DISK),
    ],
    "cbir-redis": [],
    "pims-cache": [],
    "sam": [
        same("API_BASE_PATH", "/sam"),
        left("WEIGHTS_PATH", "/app/weights", "the default ./weights is the same from the image's folder"),
        other("TORCHINDUCTOR_CACHE_DIR", "/.cache/torchinductor", "/tmp/torchinductor", LOCAL_DISK),
        other("HOME", "", "/tmp", LOCAL_DISK),
    ],
    "app-engine": [
        same("API_PREFIX", "/app-engine/"),
        other("DB_HOST", "app-engine-db", "cm-ada-app-engine-db", PLACE),
        same("DB_PORT", "5432"),
        same("DB_NAME", "appengine"),
        same("DB_USERNAME", "appengine"),
        other("DB_PASSWORD", "password", "secret app-engine-db-password", SECRET),
        other("REGISTRY_URL", "http://registry:5000", "http://cm-ada-registry:5000", PLACE),
        same("SCHEDULER_RUN_MODE", "cluster"),
        other(
            "SCHEDULER_ADVERTISED_URL",
            "http://app-engine:8080",
            "http://cm-ada-app-engine.ns.svc:8080",
            PLACE,
        ),
        same("SCHEDULER_REGISTRY_ADVERTISED_URL", "localhost:32000"),
        same("SCHEDULER_USE_HOST_NETWORK", "false"),
        other("SCHEDULER_TASKS_NAMESPACE", "app-engine-tasks", "tasks", "the administrator's"),
        other("KUBERNETES_MASTER", "https://k3s:6443/", "https://kubernetes.default.svc", PLACE),
        other(
            "KUBERNETES_AUTH_TOKEN",
            "the pod's own",
            "secret token",
            "pods of stacks have no account of their own",
        ),
        left("SCHEDULER_TASKS_RUNNER_IMAGE", "cytomine/app-engine-tasks-runner:latest", DEFAULT),
        left("STORAGE_BASE_PATH", "/app-engine-shared-inputs", "the chart leaves the default, /data"),
        left("RUN_STORAGE_BASE_PATH", "/app-engine-shared-inputs", "the chart leaves the default, /data"),
        left("REF_STORAGE_BASE_PATH", "/app-engine-shared-datasets", "only for the run mode local"),
        left("REGISTRY_USER", "", "the stack's registry asks for none"),
        left("REGISTRY_PASSWORD", "", "the stack's registry asks for none"),
        left("PORT", "", DEFAULT),
        other("JAVA_TOOL_OPTIONS", "", "-XX:MaxRAMPercentage=60", HEAP),
    ],
    "app-engine-db": [
        same("POSTGRES_USER", "appengine"),
        same("POSTGRES_DB", "appengine"),
        other("POSTGRES_PASSWORD", "password", "secret app-engine-db-password", SECRET),
        other("PGDATA", "", "/var/lib/postgresql/data/pgdata", "a new volume may hold lost+found"),
    ],
    "registry": [
        same("REGISTRY_STORAGE_DELETE_ENABLED", "true"),
        same("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/data"),
    ],
    "meilisearch": [
        same("MEILI_ENV", "production"),
        same("MEILI_NO_ANALYTICS", "true"),
        other("MEILI_MASTER_KEY", "fixed", "secret meilisearch-key", SECRET),
        other("MEILI_DB_PATH", "", "/meili_data/data.ms", "the default, from the image's folder"),
    ],
}

# Ports: upstream's chart has the same.
PORTS = {
    "postgis": 5432,
    "mongo": 27017,
    "repository": 8081,
    "core": 8080,
    "pims": 5000,
    "pims-cache": 6379,
    "web-ui": 9090,
    "cbir": 6000,
    "cbir-redis": 6379,
    "sam": 8000,
    "app-engine": 8080,
    "app-engine-db": 5432,
    "registry": 5000,
    "meilisearch": 7700,
}

SCRATCH = "the root file system is read-only, upstream's chart mounts it, too"
# Folders and files that are mounted, and what they are for. What upstream mounts and no manifest does stands below.
MOUNTS: dict[str, dict[str, str]] = {
    "postgis": {
        "/var/lib/postgresql/data": "the data",
        "/var/run/postgresql": SCRATCH,
        "/tmp": SCRATCH,
    },
    "mongo": {"/data/db": "the data", "/data/configdb": "the image declares it", "/tmp": SCRATCH},
    "repository": {"/tmp": SCRATCH},
    "core": {"/tmp": "uploads on their way, and JavaMelody's folder"},
    "pims": {
        "/data": "one volume for what upstream mounts at /data/images, /data/pims and /tmp/uploaded",
        "/dataset": "DATASET_PATH",
        "/tmp": SCRATCH,
    },
    "pims-cache": {"/tmp": "nothing is kept; upstream's is /data, empty as well"},
    "web-ui": {
        "/etc/nginx/nginx.conf": "the image's own listens on port 80; upstream's chart mounts one, too",
        "/tmp": "nginx's files, and the configuration that the image's start writes",
    },
    "cbir": {"/data": "the index", "/tmp": SCRATCH},
    "cbir-redis": {"/data": "which vector belongs to what"},
    "sam": {"/tmp": SCRATCH},
    "app-engine": {"/data": "STORAGE_BASE_PATH", "/tmp": SCRATCH},
    "app-engine-db": {
        "/var/lib/postgresql/data": "the data",
        "/var/run/postgresql": SCRATCH,
        "/tmp": SCRATCH,
    },
    "registry": {"/data": "the images", "/tmp": SCRATCH},
    "meilisearch": {"/meili_data": "the index", "/tmp": SCRATCH},
}
UNMOUNTED = {
    ("core", "/etc/localtime"): "times are UTC",
    ("core", "/cm_configs/app/application.yml.sample"): UNREAD,
    ("core", "/cm_configs/app/logback.xml"): UNREAD,
    ("core", "/javamelody-core"): "see JAVAMELODY_PATH",
    ("pims", "/cm_configs/app/logging.yml"): UNREAD,
    ("web-ui", "/etc/localtime"): "times are UTC",
    ("web-ui", "/app/configuration.json"): "the image's start writes it to /tmp",
    ("cbir", "/.cache"): "see TORCHINDUCTOR_CACHE_DIR",
    ("cbir", "/weights"): "the image has them at /app/weights",
    ("sam", "/.cache"): "see TORCHINDUCTOR_CACHE_DIR",
    ("app-engine", "/app-engine-shared-inputs"): "only for the run mode local",
}
COMPONENTS = [name for name in components.ALL if name != "gateway"]


@pytest.fixture(scope="module")
def pods() -> dict[str, dict[str, Any]]:
    """The pods of a stack with all that it may have, by component."""
    made = objects(everything(), components=ALL_EXTRAS)
    found = [o for o in made if o["kind"] in render.WORKLOADS]
    return {o["metadata"]["name"].removeprefix("cm-ada-"): o["spec"]["template"]["spec"] for o in found}


def variables(container: dict[str, Any]) -> dict[str, str]:
    """The environment; of what comes from a Secret its key."""
    return {
        e["name"]: e["value"] if "value" in e else f"secret {e['valueFrom']['secretKeyRef']['key']}"
        for e in container.get("env", [])
    }


def test_the_table_knows_every_component_of_upstream(pods: dict[str, dict[str, Any]]) -> None:
    assert set(pods) - {"gateway"} == set(COMPONENTS) == set(TABLE) == set(PORTS) == set(MOUNTS)


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_variable_is_set_as_the_table_says(component: str, pods: dict[str, dict[str, Any]]) -> None:
    rows = TABLE[component]
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.why or row.ours == row.upstream for row in rows), "a difference has a reason"
    expected = {row.name: row.ours for row in rows if row.ours is not None}
    assert variables(pods[component]["containers"][0]) == expected


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_port_is_the_one_that_upstreams_image_listens_on(
    component: str, pods: dict[str, dict[str, Any]]
) -> None:
    (container,) = pods[component]["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [PORTS[component]]


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_folder_is_one_of_the_table_and_others_can_be_written_to_nowhere(
    component: str, pods: dict[str, dict[str, Any]]
) -> None:
    (container,) = pods[component]["containers"]
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert paths == set(MOUNTS[component])
    assert not paths & {path for name, path in UNMOUNTED if name == component}
    for row in TABLE[component]:
        # What a program writes below a path must be on a volume.
        if row.ours and row.name in (
            "PGDATA",
            "WRITING_PATH",
            "PENDING_PATH",
            "TMPDIR",
            "HOME",
            "MPLCONFIGDIR",
        ):
            assert any(row.ours.startswith(path) for path in paths)


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_user_is_upstreams(component: str, pods: dict[str, dict[str, Any]]) -> None:
    security = pods[component]["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (USER, USER, USER)
