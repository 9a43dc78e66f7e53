"""Certificates and kubeconfigs of the cluster, made once by openssl."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

from dev import proc
from dev.cluster.layout import API, API_SVC_IP, NODE, NODE_IP

_CLIENT = "extendedKeyUsage=clientAuth"
# Kubernetes names a certificate's user in CN and the groups in O.
_USERS = {
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE}",
    "ingress": "/CN=ingress",
    "netpol": "/CN=netpol",
    "hostpath-provisioner": "/CN=hostpath-provisioner",
    "admin": "/O=system:masters/CN=admin",
}


def kubeconfig(server: str, ca: Path, user: dict[str, str]) -> str:
    """A kubeconfig in JSON, which is YAML too, so that the standard library can read it."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "local", "cluster": {"server": server, "certificate-authority-data": b64(ca)}}
            ],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "user"}}],
            "current-context": "local",
        },
        indent=1,
    )


def b64(path: Path) -> str:
    """A file's content in base64."""
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(folder: Path, *args: str) -> None:
    proc.run(["openssl", *args], "making certificates", log="openssl", timeout=60, cwd=folder)


def _key(folder: Path, name: str) -> None:
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")


def _authority(folder: Path, name: str) -> None:
    _key(folder, name)
    _openssl(
        folder,
        "req",
        "-x509",
        "-new",
        "-key",
        f"{name}.key",
        "-days",
        "3650",
        "-subj",
        f"/CN={name}",
        "-out",
        f"{name}.crt",
    )


def _certificate(folder: Path, name: str, authority: str, subject: str, extensions: str) -> None:
    _key(folder, name)
    _openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    (folder / f"{name}.ext").write_text(extensions + "\n")
    sign = ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "3650"]
    _openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", *sign, "-extfile", f"{name}.ext", "-out", f"{name}.crt"
    )


def service_account_keys(folder: Path) -> None:
    """``sa.key`` and ``sa.pub``: what tokens of service accounts are signed with."""
    _openssl(folder, "genrsa", "-out", "sa.key", "2048")
    _openssl(folder, "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def make(folder: Path) -> None:
    """Make all certificates and kubeconfigs, unless they are there. The folder appears whole."""
    if folder.is_dir():
        return
    tmp = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True, mode=0o700)
    _authority(tmp, "ca")
    _authority(tmp, "front-proxy-ca")
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    alternatives = [*(f"DNS:{n}" for n in names), "IP:127.0.0.1", f"IP:{API_SVC_IP}", f"IP:{NODE_IP}"]
    server = "extendedKeyUsage=serverAuth\nsubjectAltName="
    _certificate(tmp, "apiserver", "ca", "/CN=kube-apiserver", server + ",".join(alternatives))
    _certificate(
        tmp,
        "kubelet-server",
        "ca",
        f"/O=system:nodes/CN=system:node:{NODE}",
        f"{server}DNS:{NODE},IP:{NODE_IP}",
    )
    _certificate(
        tmp, "apiserver-kubelet-client", "ca", "/O=system:masters/CN=kube-apiserver-kubelet-client", _CLIENT
    )
    _certificate(tmp, "front-proxy-client", "front-proxy-ca", "/CN=front-proxy-client", _CLIENT)
    service_account_keys(tmp)
    for user, subject in _USERS.items():
        _certificate(tmp, user, "ca", subject, _CLIENT)
        credentials = {
            "client-certificate-data": b64(tmp / f"{user}.crt"),
            "client-key-data": b64(tmp / f"{user}.key"),
        }
        (tmp / f"{user}.kubeconfig").write_text(kubeconfig(API, tmp / "ca.crt", credentials))
    tmp.rename(folder)
