from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from dev.cluster import images, layout, mkimage, network, node, pki, programs
from dev.cluster.parts import Part, Parts, boot_id, start_ticks
from dev.console import Console, Problem


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.24rc1 linux/arm64", (1, 24)),
        ("go version devel +abc", None),
        ("", None),
    ],
)
def test_go_versions_are_read(text: str, version: tuple[int, int] | None) -> None:
    assert programs.parse_go_version(text) == version


def fake(folder: Path, name: str, output: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "answer").write_text(output)
    (folder / name).write_text(f"#!/bin/sh\n/bin/cat {folder}/answer\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("output", ["go version go1.19.8 linux/amd64\n", None])
def test_an_old_or_missing_go_is_told_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str | None
) -> None:
    if output:
        fake(tmp_path, "go", output)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        Problem, match=r"^Go 1\.24 or newer is needed .* (go1\.19\.8|none).*found\. Install Go .* KUBECONFIG"
    ):
        programs.go_version()


def test_one_who_is_not_root_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Problem, match=r"needs root.*sudo.*KUBECONFIG"):
        programs.need_root("starting the local cluster")


def test_too_little_space_is_told_before_compiling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(tmp_path))
    monkeypatch.setattr(programs, "FREE_GB", 10**6)
    with pytest.raises(Problem, match=r"up to 1000000 GB and only .* are free"):
        programs._need_space()


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path / "parts", tmp_path / "log")


def test_a_started_program_outlives_nothing_but_its_stop(parts: Parts) -> None:
    part = parts.start("sleeper", ["sleep", "300"])
    assert parts.alive("sleeper")
    assert os.getsid(part.pid) == part.pid, "a session of its own, so that Ctrl-C does not reach it"
    parts.stop(["sleeper"])
    assert not parts.alive("sleeper")
    assert start_ticks(part.pid) is None
    assert parts.get("sleeper") is None


def test_a_record_of_another_process_with_the_same_pid_is_stale(parts: Parts) -> None:
    with subprocess.Popen(["sleep", "300"]) as stranger:
        ticks = start_ticks(stranger.pid)
        assert ticks
        for record in (
            Part("kubelet", stranger.pid, ticks - 1, boot_id(), ["kubelet"], 0.0),
            Part("kubelet", stranger.pid, ticks, "an earlier start of the machine", ["kubelet"], 0.0),
        ):
            parts.records.mkdir(exist_ok=True)
            (parts.records / "kubelet.json").write_text(json.dumps(record.__dict__))
            assert not parts.alive("kubelet")
            parts.stop(["kubelet"], sig=signal.SIGKILL)
            assert stranger.poll() is None, "a stranger was ended"
        stranger.kill()


def test_a_half_written_record_is_no_program(parts: Parts) -> None:
    parts.records.mkdir()
    (parts.records / "etcd.json").write_text('{"name": "etcd", "pi')
    assert not parts.alive("etcd")


def test_a_program_that_ends_early_is_told_with_its_last_words(parts: Parts) -> None:
    parts.start("etcd", [sys.executable, "-c", "print('disk is on fire')"])
    with pytest.raises(
        Problem,
        match=r"^etcd ended while waiting for the store to answer: disk is on fire\. Read .*etcd\.log",
    ):
        parts.wait("etcd", "the store to answer", lambda: False, 30)


def test_a_panic_is_told_by_its_first_line(parts: Parts) -> None:
    parts.start(
        "etcd",
        [sys.executable, "-c", "print('start\\npanic: invalid page\\n\\ngoroutine 1:\\n\\tbackend.go:75')"],
    )
    parts.start("kube-apiserver", ["sleep", "300"])
    with pytest.raises(
        Problem, match=r"^etcd ended while waiting for an answer: panic: invalid page\. Read .*etcd\.log"
    ):
        parts.wait("kube-apiserver", "an answer", lambda: False, 30, needs=["etcd"])
    parts.stop(["kube-apiserver"])


def test_a_program_that_takes_too_long_is_told_with_its_log(parts: Parts) -> None:
    parts.start("etcd", ["sleep", "300"])
    with pytest.raises(Problem, match=r"^the store to answer took longer than 0 s .*Read .*etcd\.log"):
        parts.wait("etcd", "the store to answer", lambda: False, 0.1)
    parts.stop(["etcd"])


def test_a_program_that_ignores_the_signal_is_ended_all_the_same(parts: Parts) -> None:
    code = "import signal, sys; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    parts.start("deaf", [sys.executable, "-c", code])
    parts.wait("deaf", "its handler", lambda: parts.last_words("deaf") == "deaf", 30)
    parts.stop(["deaf"], patience=0.3)
    assert not parts.alive("deaf")


def test_an_image_of_equal_files_has_equal_bytes_and_name(tmp_path: Path) -> None:
    made = []
    for n in (1, 2):
        program = tmp_path / f"program{n}"
        program.write_bytes(b"\x7fELF same")
        os.utime(program, (n, n))
        out = tmp_path / f"{n}.tar"
        name = mkimage.write(
            out, "localhost/cytomine-spawner/x", {"/bin/x": program}, ["/bin/x"], folders=["/tmp"]
        )
        made.append((name, out.read_bytes()))
    assert made[0] == made[1]
    (tmp_path / "program2").write_bytes(b"\x7fELF other")
    other = mkimage.write(
        tmp_path / "3.tar", "localhost/cytomine-spawner/x", {"/bin/x": tmp_path / "program2"}, ["/bin/x"]
    )
    assert other != made[0][0]


def test_an_image_is_whole(tmp_path: Path) -> None:
    program = tmp_path / "x"
    program.write_bytes(b"\x7fELF")
    name = mkimage.write(
        tmp_path / "x.tar", "localhost/cytomine-spawner/x", {"/bin/x": program}, ["/bin/x"], folders=["/tmp"]
    )
    assert re.fullmatch(r"localhost/cytomine-spawner/x:[0-9a-f]{12}", name)
    with tarfile.open(tmp_path / "x.tar") as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
        for path, data in files.items():
            if path.startswith("blobs/"):
                assert hashlib.sha256(data).hexdigest() == path.rsplit("/", 1)[1]
    entry = json.loads(files["index.json"])["manifests"][0]
    manifest = json.loads(files["blobs/sha256/" + entry["digest"].removeprefix("sha256:")])
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"].removeprefix("sha256:")])
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == 1
    assert config["config"]["User"] == "65532"
    (tmp_path / "layer.tar").write_bytes(
        files["blobs/sha256/" + manifest["layers"][0]["digest"].removeprefix("sha256:")]
    )
    with tarfile.open(tmp_path / "layer.tar") as tar:
        assert {m.name: oct(m.mode) for m in tar.getmembers()} == {
            "bin": "0o755",
            "tmp": "0o1777",
            "bin/x": "0o755",
        }
    assert images._described(tmp_path / "x.tar") == (name, tmp_path / "x.tar")


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("nothing")
    with pytest.raises(Problem, match="is not an OCI archive"):
        images._described(tmp_path / "x.tar")


def test_old_images_go_but_not_those_in_use_the_last_two_or_others() -> None:
    hub = "localhost/cytomine-spawner/hub"
    have = [*(f"{hub}:{n}" for n in range(5)), "localhost/cytomine-spawner/proxy:1", "localhost/other/hub:1"]
    imported = {f"{hub}:{n}": float(n) for n in range(5)}
    assert images.outdated(have, {f"{hub}:1"}, imported) == [f"{hub}:0", f"{hub}:2"]


def test_a_taken_port_is_told_with_the_program_and_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        with pytest.raises(Problem, match=rf"^port {port} is used by .*--port"):
            node.check_port(port)
    node.check_port(port)


def test_a_network_with_the_clusters_addresses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "192.0.2.0/24", "dev": "eth0"},
        {"dst": layout.SVC_CIDR, "dev": layout.NODE_BRIDGE},
    ]
    fake(tmp_path / "bin", "ip", json.dumps(routes))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    network.check_addresses()
    fake(tmp_path / "bin", "ip", json.dumps([*routes, {"dst": "10.244.0.0/16", "dev": "tun0"}]))
    with pytest.raises(Problem, match=r"10\.244\.0\.0/24 are used by the network 10\.244\.0\.0/16 of tun0"):
        network.check_addresses()


def test_a_cache_too_deep_for_sockets_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(tmp_path / ("x" * 100)))
    with pytest.raises(Problem, match="too long for the sockets"):
        layout.state()


def test_a_half_made_folder_of_certificates_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pki.tmp").mkdir()
    (tmp_path / "pki.tmp" / "ca.key").write_text("half")
    pki.make(tmp_path / "pki")
    assert not (tmp_path / "pki.tmp").exists()
    config = json.loads((tmp_path / "pki" / "admin.kubeconfig").read_text())
    assert config["clusters"][0]["cluster"]["server"] == layout.API
    check = ["openssl", "verify", "-CAfile", "ca.crt", "admin.crt", "apiserver.crt", "kubelet.crt"]
    assert subprocess.run(check, cwd=tmp_path / "pki", capture_output=True).returncode == 0
    before = (tmp_path / "pki" / "ca.crt").read_bytes()
    pki.make(tmp_path / "pki")
    assert (tmp_path / "pki" / "ca.crt").read_bytes() == before


def test_of_two_commands_that_import_an_image_at_once_one_does_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    have: dict[str, str] = {}
    imported: list[str] = []

    def one(name: str, _: Path) -> None:
        assert name not in have, "containerd refuses whoever comes second"
        imported.append(name)
        have[name] = "sha256:1"

    archive = tmp_path / "hub.tar"
    archive.touch()
    monkeypatch.setattr(images, "present", lambda: dict(have))
    monkeypatch.setattr(images, "_import", one)
    monkeypatch.setattr(images, "_remember", lambda _: None)
    wanted = [SimpleNamespace(name="localhost/cytomine-spawner/hub", tag="1", path=archive)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(images.import_images, Console(), wanted) for _ in range(8)]
        assert all(job.result() == ["localhost/cytomine-spawner/hub:1"] for job in jobs)
    assert imported == ["localhost/cytomine-spawner/hub:1"]
