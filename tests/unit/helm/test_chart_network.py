"""Who may talk to whom: the chart's NetworkPolicies, judged by their rules."""

from __future__ import annotations

import json

from tests.support.chart import BASE, Network, merged, render


def values_with(**parts):
    return merged(BASE, parts)


def test_the_network_lets_through_what_the_parts_need():
    network = Network(render())
    for source, target, port in (
        ("203.0.113.9", "proxy", 8000),
        ("stranger", "proxy", 8000),
        ("proxy", "hub", 8081),
        ("proxy", "notebook", 8888),
        ("hub", "proxy", 8001),
        ("hub", "notebook", 8888),
        ("hub", "10.96.0.1", 443),
        ("hub", "198.51.100.7", 443),
        ("hub", "198.51.100.7", 5432),
        ("notebook", "hub", 8081),
        ("notebook", "proxy", 8000),
        *((pod, dns, 53) for pod in ("notebook", "proxy", "hub", "test") for dns in ("dns", "169.254.20.10")),
        ("notebook", "198.51.100.7", 443),
        ("secrets", "10.96.0.1", 443),
        ("test", "proxy", 8000),
        ("test", "10.96.0.1", 443),
    ):
        assert network.allows(source, target, port), (source, target, port)


def test_the_network_stops_everything_else():
    network = Network(render())
    for source, target, port in (
        ("notebook", "proxy", 8001),
        ("stranger", "proxy", 8001),
        ("203.0.113.9", "proxy", 8001),
        ("proxy", "proxy", 8001),
        ("test", "proxy", 8001),
        ("stranger", "hub", 8081),
        ("203.0.113.9", "hub", 8081),
        ("stranger", "notebook", 8888),
        ("notebook", "notebook", 8888),
        ("notebook", "stranger", 80),
        ("notebook", "10.96.0.1", 443),
        ("notebook", "192.168.1.1", 443),
        ("notebook", "172.20.0.1", 443),
        ("notebook", "100.100.0.1", 443),
        ("notebook", "169.254.169.254", 80),
        ("hub", "169.254.169.254", 80),
        ("secrets", "169.254.169.254", 80),
        ("proxy", "198.51.100.7", 443),
        ("proxy", "198.51.100.7", 53),
        ("proxy", "10.96.0.1", 53),
        ("proxy", "dns", 443),
        ("notebook", "192.168.1.1", 53),
        ("notebook", "stranger", 53),
        ("proxy", "stranger", 80),
        ("stranger", "secrets", 80),
    ):
        assert not network.allows(source, target, port), (source, target, port)


def test_pods_of_other_namespaces_that_look_like_ours_are_strangers():
    network = Network(render())
    network.add("false notebook", network.notebook, "another")
    for part in ("hub", "proxy"):
        network.add(f"false {part}", network.pods[part][0], network.users)
    for source, target, port in (
        ("false notebook", "hub", 8081),
        ("hub", "false notebook", 8888),
        ("proxy", "false notebook", 8888),
        ("false hub", "proxy", 8001),
        ("false hub", "notebook", 8888),
        ("notebook", "false hub", 8081),
    ):
        assert not network.allows(source, target, port), (source, target, port)


def test_notebooks_can_be_kept_off_the_internet_and_let_to_listed_places():
    policy = {
        "internet": False,
        "egress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 443}]}],
    }
    network = Network(render(values_with(singleuser={"networkPolicy": policy})))
    assert not network.allows("notebook", "198.51.100.7", 443)
    assert network.allows("notebook", "10.1.2.3", 443)
    assert not network.allows("notebook", "10.1.2.3", 80)


def test_the_public_port_can_be_limited_to_the_ingress_controller():
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
    network = Network(render(values_with(proxy={"networkPolicy": {"from": [peer]}})))
    assert network.allows("controller", "proxy", 8000)
    assert network.allows("notebook", "proxy", 8000)
    assert network.allows("test", "proxy", 8000)
    assert not network.allows("stranger", "proxy", 8000)


def test_a_pod_of_the_release_that_no_policy_names_reaches_nothing():
    objects = render()
    network = Network(objects)
    labels = dict(network.pods["hub"][0], **{"app.kubernetes.io/component": "new"})
    network.add("new", labels, network.release)
    assert not network.allows("new", "198.51.100.7", 443)
    assert not network.allows("stranger", "new", 80)


def test_policies_can_be_left_out():
    assert not [
        o for o in render(values_with(networkPolicy={"enabled": False})) if o["kind"] == "NetworkPolicy"
    ]


def test_names_are_asked_where_the_values_say_and_nowhere_else():
    policy = {"singleuser": {"networkPolicy": {"internet": False}}}
    assert not Network(render(values_with(**policy))).allows("notebook", "198.51.100.7", 53)
    own = {"dnsPeers": [{"ipBlock": {"cidr": "10.9.0.53/32"}}], "dnsPorts": [5353]}
    found = render(values_with(networkPolicy=own, **policy))
    assert Network(found).allows("notebook", "10.9.0.53", 5353)
    assert not Network(found).allows("notebook", "dns", 53)
    stacks = {"enabled": True, "url": "https://{stack}.stacks.example.org"}
    found = render(
        values_with(networkPolicy=own, stacks=stacks, hub={"publicUrl": "https://hub.example.org"})
    )
    settings = next(o for o in found if o["metadata"]["name"].endswith("-stacks-settings"))
    told = json.loads(settings["stringData"]["settings.json"])["StackSettings"]
    assert (told["dns_peers"], told["dns_ports"]) == (own["dnsPeers"], [5353])
