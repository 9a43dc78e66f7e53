"""The one-node cluster: start, stop, status."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import socket
import string
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from dev import cache, proc
from dev.cluster import cleanup, config, images, layout, network, pki
from dev.cluster.kube import Api, ApiError, condition
from dev.cluster.layout import API, DNS_IP, HERE, NODE, PORT, RUNTIME, SVC_CIDR
from dev.cluster.parts import Parts, boot_id, memory
from dev.cluster.programs import Programs, build, need_root
from dev.console import Console, Problem, Step, duration

NAMES = (
    "etcd",
    "kube-apiserver",
    "containerd",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "netpol",
    "hostpath-provisioner",
    "ingress",
)
RESET = "`./demo reset` starts afresh (it deletes the local cluster's objects and volumes)"


def _record() -> dict[str, object]:
    try:
        return json.loads((RUNTIME / "cluster.json").read_text())
    except (OSError, ValueError):
        return {}


def ingress_port() -> int:
    """The loopback port of the running cluster's ingress (the default one if none runs)."""
    return int(str(_record().get("port") or PORT))


def _parts() -> Parts:
    """The processes of the cluster that runs on this machine, or of the one to start."""
    folder = _record().get("state")
    return Parts(RUNTIME / "parts", (Path(str(folder)) if folder else layout.state()) / "log")


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    # in /run, not in the cache: there is one cluster a machine, whatever the caches
    with Path(f"{RUNTIME}.lock").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def admin(state: Path) -> Api:
    """The administrator's way to the API server."""
    folder = state / "pki"
    return Api(API, folder / "ca.crt", (folder / "admin.crt", folder / "admin.key"))


def _version(programs: Programs) -> str:
    # what a running cluster was configured by: another version of it means a restart
    sources = [HERE / n for n in ("config.py", "layout.py", "network.py", "addons.yaml")]
    return f"{programs.folder.name}-{cache.digest(sources)}"


def _node_fresh(api: Api, since: float) -> bool:
    """Whether the kubelet reported Ready after ``since``: the store remembers an earlier run's Ready.

    The node's lease would not do: on a first start the kubelet makes it 10 s after the node is Ready.
    """
    try:
        status = api.get(f"/api/v1/nodes/{NODE}")["status"]
    except ApiError as e:
        if e.code == 404:
            return False
        raise
    return any(
        c["type"] == "Ready" and c["status"] == "True" and _timestamp(c["lastHeartbeatTime"]) >= int(since)
        for c in status.get("conditions", [])
    )


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def healthy() -> bool:
    """Whether the cluster of this cache runs and its node is Ready."""
    record = _record()
    if record.get("boot") != boot_id() or record.get("state") != str(layout.state()):
        return False
    parts = _parts()
    if not all(parts.alive(n) for n in NAMES):
        return False
    try:
        api = admin(layout.state())
        return api.ready() and _node_fresh(api, time.time() - 60)
    except OSError:
        return False


def up(console: Console, port: int = PORT, audit: Path | None = None) -> Path:
    """Start the cluster, or find it running.

    Args:
        console: progress.
        port: the ingress's port on 127.0.0.1.
        audit: file for an audit log (who asked for what, without bodies).

    Returns:
        The administrator's kubeconfig.

    Raises:
        Problem: a part did not come up, something is missing, or the port is another program's.
    """
    need_root("starting the local cluster")
    programs = build(console)
    state = layout.state()
    wanted = {"version": _version(programs), "audit": str(audit.resolve()) if audit else ""}
    with _lock():
        record = _record()
        if all(record.get(k) == v for k, v in wanted.items()) and healthy():
            if record.get("port") != port:
                _move_ingress(programs, state, port)
            return layout.kubeconfig()
        _check_owner(record)
        if not (_parts().alive("ingress") and record.get("port") == port):
            check_port(port)
        with console.step("Starting the local Kubernetes") as step:
            step.detail("cleaning up")
            cleanup.clean(_parts(), state)
            RUNTIME.mkdir(parents=True, exist_ok=True)
            record = {**wanted, "state": str(state), "boot": boot_id(), "port": port}
            (RUNTIME / "cluster.json").write_text(json.dumps(record))
            try:
                _start(programs, state, port, audit, step)
            except BaseException:
                cleanup.clean(_parts(), state)  # half a cluster would only burn the processor
                raise
    return layout.kubeconfig()


def _check_owner(record: dict[str, object]) -> None:
    other = record.get("state")
    if other and other != str(layout.state()) and any(_parts().alive(n) for n in NAMES):
        raise Problem(
            f"another local cluster runs on this machine, with its state in {other}",
            f"Stop it first: CYTOMINE_SPAWNER_CACHE={Path(str(other)).parent} python3 -m dev.cluster down",
        )


def check_port(port: int) -> None:
    """See that nobody listens on a loopback port.

    Raises:
        Problem: somebody does.
    """
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            out = subprocess.run(
                ["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, timeout=10, check=False
            ).stdout
            who = out.partition('users:(("')[2].partition('"')[0]
            raise Problem(
                f"port {port} is used by {who or 'another program'}",
                "End that program, or choose another port with --port",
            ) from None


def _start(programs: Programs, state: Path, port: int, audit: Path | None, step: Step) -> None:
    began = time.time()
    parts = _parts()
    step.detail("network and certificates")
    for folder in ("kubelet", "podlogs", "pv", "log"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (RUNTIME / "cni").mkdir(exist_ok=True)
    network.up()
    cleanup.make_cgroups()
    _share_mounts(state / "kubelet")
    known = (state / "etcd").is_dir()
    pki.make(state / "pki")
    shutil.copyfile(state / "pki" / "admin.kubeconfig", layout.kubeconfig())
    layout.kubeconfig().chmod(0o600)
    api = admin(state)

    step.detail("etcd, API server, containerd")
    cure = RESET if known else ""
    parts.start("etcd", [programs.bin / "etcd", "--data-dir", state / "etcd"])
    switches = config.api_server(state) + config.audit(RUNTIME / "audit-policy.json", audit)
    parts.start("kube-apiserver", [programs.bin / "kube-apiserver", *switches])
    with ThreadPoolExecutor(2) as pool:
        containers = pool.submit(_start_containerd, parts, programs, state)
        parts.wait("kube-apiserver", "the API server to be ready", api.ready, 90, cure, needs=["etcd"])
        pki_of = {n: state / "pki" / f"{n}.kubeconfig" for n in ("netpol", "hostpath-provisioner", "ingress")}
        parts.start(
            "kube-controller-manager",
            [programs.bin / "kube-controller-manager", *config.controller_manager(state)],
        )
        parts.start("kube-scheduler", [programs.bin / "kube-scheduler", *config.scheduler(state)])
        step.detail("containerd and node")
        containers.result()
        addons = pool.submit(_apply_addons, programs)
        _start_node(parts, programs, state)
        parts.start("netpol", [programs.bin / "netpol", "--kubeconfig", pki_of["netpol"]])
        provisioner = ["--kubeconfig", pki_of["hostpath-provisioner"], "--dir", state / "pv"]
        parts.start("hostpath-provisioner", [programs.bin / "hostpath-provisioner", *provisioner])
        addons.result()
    _start_ingress(parts, programs, state, port)
    step.detail("node")
    parts.wait("kubelet", "the node to be Ready", lambda: _node_fresh(api, began), 120)
    step.detail("cluster DNS")
    parts.wait("kubelet", "the cluster's DNS to answer", _dns_answers, 90)
    step.detail("pods of the last run")
    parts.wait("kubelet", "the pods of the last run to be looked at", lambda: not _stale_pods(api, began), 60)


def _share_mounts(folder: Path) -> None:
    # volumes that the kubelet mounts must show up in containers that are started later
    for args in (["--bind", str(folder), str(folder)], ["--make-rshared", str(folder)]):
        proc.run(["mount", *args], "preparing the kubelet's folder", log="network", timeout=20)


def _start_containerd(parts: Parts, programs: Programs, state: Path) -> None:
    (RUNTIME / "containerd.toml").write_text(config.containerd(state, programs.images["pause"]))
    (RUNTIME / "cni" / "10-bridge.conflist").write_text(config.cni())
    for last in (False, True):
        parts.start("containerd", ["containerd", "-c", RUNTIME / "containerd.toml"])
        try:
            parts.wait("containerd", "containerd to answer", images.alive, 30)
            with (state / "log" / "imports.log").open("a") as log:
                # the step that starts the cluster speaks for this one, too
                images.import_images(Console(stream=log), [programs.archive(i) for i in programs.images])
            return
        except Problem:
            if last:
                raise
            # Its folder holds images, which are imported anew: no volume is in it.
            parts.stop(["containerd"])
            shutil.rmtree(state / "containerd", ignore_errors=True)


def _start_node(parts: Parts, programs: Programs, state: Path) -> None:
    (RUNTIME / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (RUNTIME / "kubelet.json").write_text(config.kubelet(state))
    (RUNTIME / "kube-proxy.json").write_text(config.kube_proxy(state))
    own = [f"--kubeconfig={state}/pki/kubelet.kubeconfig", f"--cert-dir={state}/pki"]
    place = [f"--root-dir={state}/kubelet", f"--hostname-override={NODE}", f"--node-ip={layout.NODE_IP}"]
    parts.start("kubelet", [programs.bin / "kubelet", f"--config={RUNTIME}/kubelet.json", *own, *place])
    parts.start("kube-proxy", [programs.bin / "kube-proxy", f"--config={RUNTIME}/kube-proxy.json"])


def _apply_addons(programs: Programs) -> None:
    text = string.Template((HERE / "addons.yaml").read_text()).substitute(programs.images)
    command = [programs.bin / "kubectl", "--kubeconfig", layout.kubeconfig(), "apply", "-f", "-"]
    proc.run(command, "installing the cluster's add-ons", log="addons", timeout=60, stdin=text)


def _start_ingress(parts: Parts, programs: Programs, state: Path, port: int) -> None:
    listen = f"127.0.0.1:{port},[::1]:{port}"
    parts.start(
        "ingress",
        [programs.bin / "ingress", "--kubeconfig", state / "pki" / "ingress.kubeconfig", "--listen", listen],
    )

    def listens() -> bool:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True

    parts.wait("ingress", "the ingress to listen", listens, 30)


def _move_ingress(programs: Programs, state: Path, port: int) -> None:
    check_port(port)
    parts = _parts()
    parts.stop(["ingress"])
    _start_ingress(parts, programs, state, port)
    (RUNTIME / "cluster.json").write_text(json.dumps({**_record(), "port": port}))


def _dns_answers() -> bool:
    """Ask the cluster's DNS for the API server's name, by hand."""
    labels = b"".join(bytes([len(p)]) + p for p in b"kubernetes.default.svc.cluster.local".split(b"."))
    query = struct.pack(">6H", 0x4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.3)
        s.connect((DNS_IP, 53))
        s.send(query)
        return socket.inet_aton(layout.API_SVC_IP) in s.recv(512)


def _stale_pods(api: Api, began: float) -> list[str]:
    """Pods that the store calls Ready since the last run, though their containers ended with it."""
    stale = []
    for pod in api.get("/api/v1/pods")["items"]:
        running = [
            s["state"]["running"]
            for s in pod["status"].get("containerStatuses", [])
            if "running" in s["state"]
        ]
        if condition(pod, "Ready") and any(_timestamp(r["startedAt"]) < began - 1 for r in running):
            stale.append(pod["metadata"]["name"])
    return stale


def down(console: Console, *, wipe: bool = False) -> None:
    """Stop the cluster; its state stays unless it is to be wiped."""
    need_root("stopping the local cluster")
    with _lock():
        record = _record()
        state = Path(str(record.get("state") or layout.state()))
        if wipe:
            _check_owner(record)
            state = layout.state()
        title = "Removing the local Kubernetes" if wipe else "Stopping the local Kubernetes"
        with console.step(title):
            cleanup.clean(_parts(), state, wipe=wipe)


def memories() -> dict[str, int]:
    """Bytes that each running part of the cluster takes."""
    parts = _parts()
    return {name: memory(part.pid) for name in NAMES if (part := parts.get(name)) and part.alive()}


def status(console: Console) -> bool:
    """Print a table of the parts; True if all is well."""
    parts, record = _parts(), _record()
    good = healthy()
    total = 0
    console.say(f"{'part':<26}{'pid':>8}  {'up':<16}{'memory':>10}")
    for name in NAMES:
        part = parts.get(name)
        if part is None or not part.alive():
            console.say(f"{name:<26}{'-':>8}  not running")
            continue
        used = memory(part.pid)
        total += used
        console.say(
            f"{name:<26}{part.pid:>8}  {duration(time.time() - part.began):<16}{used / 2**20:>6.0f} MiB"
        )
    console.say(f"{'all':<26}{'':>8}  {'':<16}{total / 2**20:>6.0f} MiB")
    if good:
        console.say(
            f"node {NODE} Ready · services {SVC_CIDR} · ingress http://*.localhost:{record.get('port')}"
        )
        console.say(f"KUBECONFIG={layout.kubeconfig()}")
    elif not record:
        console.say("The local cluster is not running.")
    elif record.get("state") != str(layout.state()):
        console.say(f"This is another local cluster, with its state in {record.get('state')}.")
    else:
        console.say("The local cluster is not healthy: run `python3 -m dev.cluster up`.")
    return good
