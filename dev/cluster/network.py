"""The node's network: a bridge for its address and a table that keeps everything on this machine."""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_network
from pathlib import Path

from dev import proc
from dev.cluster.layout import NODE_BRIDGE, NODE_IP, POD_BRIDGE, POD_CIDR, SVC_CIDR
from dev.console import Problem

GUARD = "kubeguard"
TABLES = (f"inet {GUARD}", "inet netpol", "ip kube-proxy", "ip6 kube-proxy")

# Nothing of the cluster leaves the machine: pods are not forwarded to any other interface, and a
# service address that nobody translated is refused rather than sent out by the default route.
# Pod addresses are not matched in the output hook: there a packet from the node to a service still
# has the route, and so the interface, of the service's address.
_GUARD = f"""
add table inet {GUARD}
delete table inet {GUARD}
table inet {GUARD} {{
  chain forward {{ type filter hook forward priority 10; policy accept;
    iifname "{POD_BRIDGE}" oifname != {{ "{POD_BRIDGE}", "{NODE_BRIDGE}" }} counter reject
    ip saddr {POD_CIDR} oifname != {{ "{POD_BRIDGE}", "{NODE_BRIDGE}" }} counter reject
  }}
  chain output {{ type filter hook output priority 10; policy accept;
    oifname != {{ "lo", "{POD_BRIDGE}", "{NODE_BRIDGE}" }} ip daddr {SVC_CIDR} counter reject
  }}
  chain postrouting {{ type filter hook postrouting priority 10; policy accept;
    oifname != {{ "lo", "{POD_BRIDGE}", "{NODE_BRIDGE}" }} ip daddr {{ {POD_CIDR}, {SVC_CIDR} }} counter drop
  }}
}}
"""


def _ip(*args: str) -> None:
    proc.run(["ip", *args], "setting up the node's network", log="network", timeout=20)


def check_addresses() -> None:
    """See that no other network of this machine uses the cluster's addresses."""
    out = subprocess.run(
        ["ip", "-j", "-4", "route"], capture_output=True, text=True, timeout=20, check=False
    ).stdout
    ours = [ip_network(n) for n in (POD_CIDR, SVC_CIDR, f"{NODE_IP}/32")]
    for route in json.loads(out or "[]"):
        dst, dev = route.get("dst", "default"), route.get("dev", "")
        if dst == "default" or dev in (NODE_BRIDGE, POD_BRIDGE):
            continue
        for own in ours:
            if ip_network(dst, strict=False).overlaps(own):
                raise Problem(
                    f"the local cluster's addresses {own} are used by the network {dst} of {dev}",
                    "Take that network down, or set KUBECONFIG to an existing cluster",
                )


def up() -> None:
    """Make the node's bridge (not every kernel has dummy links), its routes and the guard."""
    check_addresses()
    if not Path(f"/sys/class/net/{NODE_BRIDGE}").exists():
        _ip("link", "add", NODE_BRIDGE, "type", "bridge")
    _ip("addr", "replace", f"{NODE_IP}/32", "dev", NODE_BRIDGE)
    _ip("link", "set", NODE_BRIDGE, "up")
    _ip("route", "replace", SVC_CIDR, "dev", NODE_BRIDGE)
    proc.run(
        ["nft", "-f", "-"],
        "setting up the guard against traffic that leaves",
        log="network",
        timeout=20,
        stdin=_GUARD,
    )
    _sysctl("net/ipv4/ip_forward")
    bridged = "net/bridge/bridge-nf-call-iptables"
    if not Path("/proc/sys", bridged).exists():
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, timeout=20, check=False)
    _sysctl(bridged)  # or NetworkPolicy would not see what passes between two pods


def _sysctl(name: str) -> None:
    path = Path("/proc/sys", name)
    try:
        if path.read_text().strip() != "1":
            path.write_text("1")
    except OSError as e:
        raise Problem(
            f"the kernel's setting {name.replace('/', '.')} cannot be switched on ({e.strerror})",
            "Run on a kernel with br_netfilter, or set KUBECONFIG to an existing cluster",
        ) from None


def down() -> None:
    """Remove the bridges and our tables; what is not there is no failure."""
    for link in (POD_BRIDGE, NODE_BRIDGE):
        if Path(f"/sys/class/net/{link}").exists():
            subprocess.run(["ip", "link", "del", link], capture_output=True, timeout=20, check=False)
    for table in TABLES:
        subprocess.run(
            ["nft", "delete", "table", *table.split()], capture_output=True, timeout=20, check=False
        )
