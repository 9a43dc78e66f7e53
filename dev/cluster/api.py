"""An API server without containers, for fast tests: several at once, each in a folder of its own."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

from dev import proc
from dev.cluster import config, pki
from dev.cluster.kube import Api, condition
from dev.cluster.parts import Parts
from dev.cluster.programs import build, build_kwok
from dev.console import Console, Problem

_ALL = ("kwok", "hostpath-provisioner", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
# Nobody waits longer for a test's objects because others have just written some.
_HURRY = ["--kube-api-qps=1000", "--kube-api-burst=1000"]
# A test's objects are few, and memory is not short: collecting garbage less often saves a tenth of the processor.
_GO = {"GOGC": "400"}
_PORTS = 6  # API server, etcd, its peers, controller manager, scheduler, KWOK


def _free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _choose(port: int) -> int:
    if port:
        taken = [p for p in range(port, port + _PORTS) if not _free(p)]
        if taken:
            raise Problem(f"port {taken[0]} is used by another program", "Choose another port, or 0 for any")
        return port
    for first in range(17000 + secrets.randbelow(400) * 10, 29000, 10):
        if all(_free(p) for p in range(first, first + _PORTS)):
            return first
    raise Problem("there are no free ports on 127.0.0.1", "End some programs")


def _server(folder: Path, port: int, accounts: bool) -> list[str]:
    switches = [
        f"--etcd-servers=http://127.0.0.1:{port + 1}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={folder}/tls.crt",
        f"--tls-private-key-file={folder}/tls.key",
        f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder}/sa.pub",
        f"--service-account-signing-key-file={folder}/sa.key",
        "--service-cluster-ip-range=10.97.0.0/16",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--profiling=false",
        # nobody else asks it anything: to give each user a fair share costs more than it gives
        "--enable-priority-and-fairness=false",
    ]
    # without the controller that makes service accounts, pods would wait for theirs for ever
    return switches if accounts else [*switches, "--disable-admission-plugins=ServiceAccount"]


def _node(i: int) -> dict[str, object]:
    size = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"}
    name = f"fake-{i}"
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "type": "kwok",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": size, "capacity": size},
    }


def api_up(
    folder: Path,
    port: int = 0,
    *,
    nodes: int = 0,
    controllers: bool | Sequence[str] = False,
    audit: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Start an API server, ready when this returns.

    Args:
        folder: for its files; made if need be, emptied by nobody.
        port: the first of 6 ports on 127.0.0.1; 0 chooses free ones.
        nodes: how many nodes KWOK plays; with any, pods are scheduled, become Ready and are deleted.
        controllers: also run the controller manager: garbage collection, Deployments, service
            accounts, namespaces' deletion, volumes (with nodes, claims are bound, too). Names:
            only these of its controllers, those of service accounts among them.
        audit: file for an audit log.
        console: progress.

    Returns:
        The administrator's kubeconfig.

    Raises:
        Problem: a part did not come up.
    """
    console = console or Console()
    programs = build(console)
    kwok = build_kwok(console) if nodes else None
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    parts = Parts(folder / "parts", folder / "log")
    parts.stop(_ALL)
    port = _choose(port)
    try:
        return _start(parts, programs.bin, kwok, folder, port, nodes, controllers, audit)
    except BaseException:
        parts.stop(_ALL)
        raise


def _credentials(folder: Path, port: int) -> Api:
    if not (folder / "sa.pub").exists():
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "tls.key"]
        proc.run(
            ["openssl", "req", "-x509", *key, "-out", "tls.crt", "-days", "3650", *subject],
            "making certificates",
            log="openssl",
            timeout=60,
            cwd=folder,
        )
        pki.service_account_keys(folder)
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    server = f"https://127.0.0.1:{port}"
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(pki.kubeconfig(server, folder / "tls.crt", {"token": token}))
    return Api(server, folder / "tls.crt", token=token)


def _start(
    parts: Parts,
    bin_folder: Path,
    kwok: Path | None,
    folder: Path,
    port: int,
    nodes: int,
    controllers: bool | Sequence[str],
    audit: Path | None,
) -> Path:
    api = _credentials(folder, port)
    own = folder / "kubeconfig"
    urls = [
        "--listen-client-url",
        f"http://127.0.0.1:{port + 1}",
        "--listen-peer-url",
        f"http://127.0.0.1:{port + 2}",
    ]
    # no fsync: nobody keeps a test's objects over a power cut
    parts.start("etcd", [bin_folder / "etcd", "--data-dir", folder / "etcd", *urls, "--unsafe-no-fsync"], _GO)
    switches = _server(folder, port, bool(controllers)) + config.audit(folder / "audit-policy.json", audit)
    parts.start("kube-apiserver", [bin_folder / "kube-apiserver", *switches], _GO)
    parts.wait("kube-apiserver", "the API server to be ready", api.ready, 60)
    common = [f"--kubeconfig={own}", "--leader-elect=false", "--profiling=false", "--bind-address=127.0.0.1"]
    if controllers:
        keys = [f"--root-ca-file={folder}/tls.crt", f"--service-account-private-key-file={folder}/sa.key"]
        switches = [*common, *_HURRY, *keys, f"--secure-port={port + 3}"]
        switches += ["--use-service-account-credentials=true"]
        if not isinstance(controllers, bool):
            switches.append(f"--controllers={','.join(controllers)}")
        parts.start("kube-controller-manager", [bin_folder / "kube-controller-manager", *switches], _GO)
    if kwok:
        switches = [*common, *_HURRY, f"--secure-port={port + 4}"]
        parts.start("kube-scheduler", [bin_folder / "kube-scheduler", *switches], _GO)
        selector = "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"
        switches = [selector, f"--server-address=127.0.0.1:{port + 5}", "--node-lease-duration-seconds=40"]
        parts.start("kwok", [kwok, f"--kubeconfig={own}", "--manage-all-nodes=false", *switches])
        for i in range(nodes):
            api.post("/api/v1/nodes", _node(i))
    if kwok and controllers:
        _storage_class(api)
        parts.start(
            "hostpath-provisioner",
            [bin_folder / "hostpath-provisioner", f"--kubeconfig={own}", "--dir", folder / "pv"],
        )
    if kwok:
        parts.wait("kwok", "the nodes to be Ready", lambda: _ready_nodes(api) >= nodes, 30 + nodes)
    if controllers:
        path = "/api/v1/namespaces/default/serviceaccounts?fieldSelector=metadata.name=default"
        parts.wait(
            "kube-controller-manager", "the default service account", lambda: bool(api.get(path)["items"]), 30
        )
    return own


def _ready_nodes(api: Api) -> int:
    return sum(condition(n, "Ready") for n in api.get("/api/v1/nodes?labelSelector=type=kwok")["items"])


def _storage_class(api: Api) -> None:
    api.post(
        "/apis/storage.k8s.io/v1/storageclasses",
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "hostpath",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "cytomine-spawner.test/hostpath",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )


def api_down(folder: Path) -> None:
    """Stop what :func:`api_up` started for a folder; its files stay."""
    folder = Path(folder).resolve()
    Parts(folder / "parts", folder / "log").stop(_ALL)
