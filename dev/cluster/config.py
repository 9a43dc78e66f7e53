"""The configuration files and command lines of the cluster's parts."""

from __future__ import annotations

import json
from pathlib import Path

from dev.cluster.layout import (
    CGROUP,
    DNS_IP,
    NODE,
    NODE_IP,
    POD_BRIDGE,
    POD_CIDR,
    RUNTIME,
    SOCKET,
    SVC_CIDR,
)

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


def containerd(state: Path, pause: str) -> str:
    """The containerd with folders and a socket of its own, beside any other on the machine."""
    # restrict_oom_score_adj: where CAP_SYS_RESOURCE is withheld a negative score cannot be set, and
    # no container would start. netns_mounts_under_state_dir: so that we clean up exactly our own.
    return f"""\
version = 2
root = "{state}/containerd"
state = "{RUNTIME}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{SOCKET}"
[ttrpc]
  address = "{SOCKET}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{RUNTIME}/cni"
"""


def cni() -> str:
    """The pods' network: one bridge, no masquerading, since nothing leaves the machine."""
    # dataDir lies with what a stop removes: addresses of pods that were killed are free again
    ipam = {
        "type": "host-local",
        "dataDir": f"{RUNTIME}/ipam",
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": POD_BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": ipam,
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "podnet", "plugins": [bridge, portmap]})


def kubelet(state: Path) -> str:
    """The kubelet's configuration (JSON is YAML)."""
    pki = state / "pki"
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_IP,
            "healthzBindAddress": "127.0.0.1",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,  # see restrict_oom_score_adj
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "clusterDNS": [DNS_IP],
            "clusterDomain": "cluster.local",
            "resolvConf": f"{RUNTIME}/resolv.conf",
            "tlsCertFile": f"{pki}/kubelet-server.crt",
            "tlsPrivateKeyFile": f"{pki}/kubelet-server.key",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{pki}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "imageGCHighThresholdPercent": 100,  # an image that was removed cannot be pulled again
            "evictionHard": {
                "memory.available": "200Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            "podLogsDir": f"{state}/podlogs",
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
            "maxPods": 200,
            "serializeImagePulls": False,
            "volumePluginDir": f"{state}/kubelet/volume-plugins",
        }
    )


def kube_proxy(state: Path) -> str:
    """kube-proxy in nftables mode: not every kernel has IPVS."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": f"{state}/pki/kube-proxy.kubeconfig"},
            "oomScoreAdj": 0,
            "clusterCIDR": POD_CIDR,
            "hostnameOverride": NODE,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "nodePortAddresses": [f"{NODE_IP}/32"],
        }
    )


def audit(policy: Path, log: Path | None) -> list[str]:
    """The API server's switches for an audit log."""
    if log is None:
        return []
    policy.write_text(json.dumps(AUDIT_POLICY))
    # the default size would rotate in the middle of a count
    return [
        f"--audit-policy-file={policy}",
        f"--audit-log-path={log.resolve()}",
        "--audit-log-maxsize=100000",
    ]


def api_server(state: Path) -> list[str]:
    """The API server's switches."""
    pki = state / "pki"
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--bind-address={NODE_IP}",
        f"--advertise-address={NODE_IP}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SVC_CIDR}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--profiling=false",
    ]


def _own(kubeconfig: Path) -> list[str]:
    flags = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [
        *(f"--{f}={kubeconfig}" for f in flags),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    ]


def controller_manager(state: Path) -> list[str]:
    """The controller manager's switches."""
    pki = state / "pki"
    return [
        *_own(pki / "kube-controller-manager.kubeconfig"),
        "--use-service-account-credentials=true",
        "--controllers=*",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        f"--service-cluster-ip-range={SVC_CIDR}",
    ]


def scheduler(state: Path) -> list[str]:
    """The scheduler's switches."""
    return _own(state / "pki" / "kube-scheduler.kubeconfig")
