"""Stand-in for Cytomine: settings from the environment variables that upstream's services read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

ROLES = ("core", "repository", "pims", "web-ui", "cbir", "mongo", "gateway")
PORTS = {
    "core": 8080,
    "repository": 8081,
    "pims": 5000,
    "web-ui": 9090,
    "cbir": 6000,
    "mongo": 27017,
    "gateway": 8000,
}


def env(*names: str, default: str = "") -> str:
    """The first of these variables that is set and not empty."""
    return next((os.environ[n] for n in names if os.environ.get(n)), default)


@dataclass(frozen=True)
class Settings:
    """What a role needs to know; names follow upstream's variables.

    ``start_delay`` (seconds, ``STANDIN_START_DELAY``) and ``connect_timeout`` (seconds,
    ``STANDIN_CONNECT_TIMEOUT``) exist in the stand-in only, and so does ``faults`` (``STANDIN_FAULTS``, see
    :mod:`.faults`): where it is not set nothing can be made to go wrong.
    """

    role: str
    host: str = field(default_factory=lambda: env("STANDIN_LISTEN", default="0.0.0.0"))  # noqa: S104 - a pod's server
    start_delay: float = field(default_factory=lambda: float(env("STANDIN_START_DELAY", default="0")))
    connect_timeout: float = field(
        default_factory=lambda: float(env("STANDIN_CONNECT_TIMEOUT", default="10"))
    )
    faults: str | None = field(default_factory=lambda: os.environ.get("STANDIN_FAULTS"))
    pg_host: str = field(default_factory=lambda: env("POSTGIS_HOST", default="postgis"))
    pg_port: int = field(default_factory=lambda: int(env("POSTGIS_PORT", default="5432")))
    pg_name: str = field(default_factory=lambda: env("POSTGIS_DB_NAME", default="docker"))
    pg_user: str = field(default_factory=lambda: env("POSTGIS_USER", default="docker"))
    pg_password: str = field(default_factory=lambda: env("POSTGIS_PASS"), repr=False)
    mongo_host: str = field(default_factory=lambda: env("MONGO_HOST", default="mongo"))
    mongo_port: int = field(default_factory=lambda: int(env("MONGO_PORT", default="27017")))
    server_url: str = field(
        default_factory=lambda: env("SERVER_URL", default="http://localhost:8080").rstrip("/")
    )
    server_id: str = field(default_factory=lambda: env("SERVER_ID", default="default"))
    pims_url: str = field(default_factory=lambda: env("PIMS_URL", default="http://pims:5000").rstrip("/"))
    cbir_url: str = field(default_factory=lambda: env("CBIR_URL", default="http://cbir:6000").rstrip("/"))
    repository_url: str = field(default_factory=lambda: env("REPOSITORY_URL").rstrip("/"))
    core_url: str = field(
        default_factory=lambda: env("INTERNAL_URL_CORE", default="http://core:8080").rstrip("/")
    )
    image_public_key: str = field(
        default_factory=lambda: env("IMAGE_SERVER_PUBLIC_KEY", "CYTOMINE_PUBLIC_KEY")
    )
    image_private_key: str = field(
        default_factory=lambda: env("IMAGE_SERVER_PRIVATE_KEY", "CYTOMINE_PRIVATE_KEY"), repr=False
    )
    admin_email: str = field(default_factory=lambda: env("ADMIN_EMAIL"))
    images: str = field(default_factory=lambda: env("ROOT", default="/data/images"))
    writing: str = field(default_factory=lambda: env("WRITING_PATH", default="/data/pims/tmp"))
    pending: str = field(default_factory=lambda: env("PENDING_PATH", default="/data/pims/pending"))
    datasets: str = field(default_factory=lambda: env("DATASET_PATH", default="/dataset"))
    # Upstream's default is not in its image.
    log_config: str = field(default_factory=lambda: env("LOG_CONFIG_FILE", default="/app/logging-prod.yml"))
    pims_base: str = field(default_factory=lambda: env("API_BASE_PATH", default="/ims").rstrip("/"))
    annotation_max_points: int = field(
        default_factory=lambda: int(env("ANNOTATION_MAX_POINTS", default="200"))
    )

    @property
    def port(self) -> int:
        """The role's port: ``STANDIN_PORT_<ROLE>``, ``STANDIN_PORT``, ``PORT`` as upstream reads it, or upstream's."""
        named = f"STANDIN_PORT_{self.role.upper().replace('-', '_')}"
        own = env(named, "STANDIN_PORT", "PORT" if self.role == "core" else "STANDIN_PORT")
        return int(own) if own else PORTS[self.role]

    @property
    def issuer(self) -> str:
        """The issuer that tokens must name."""
        own = env("SPRING_SECURITY_OAUTH2_RESOURCESERVER_JWT_ISSUER_URI")
        return own or env("IAM_EXTERNAL_URL", "IAM_URL").rstrip("/") + "/iam/realms/cytomine"

    @property
    def jwks(self) -> str:
        """Where the issuer's public keys are."""
        own = env("SPRING_SECURITY_OAUTH2_RESOURCESERVER_JWT_JWK_SET_URI")
        return own or env("IAM_URL").rstrip("/") + "/iam/realms/cytomine/protocol/openid-connect/certs"
