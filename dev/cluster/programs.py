"""What the cluster is made of: Debian's packages, the programs compiled from Go modules, three small images."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dev import cache, host, proc
from dev.cluster import mkimage
from dev.cluster.layout import HERE
from dev.console import Console, Problem

GO = (1, 24)
FREE_GB = 12
# What one compiler or linker may take before it collects garbage, in bytes.
COMPILER_MEMORY = 4 * 2**30

# The linker leaves it out of the programs anyway (-s -w).
NO_DEBUG_INFO = ("-gcflags=all=-dwarf=false",)

# What shows that a Debian package is there, which the cluster runs or is made with: the package.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "nft": "nftables",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "ip": "iproute2",
    "openssl": "openssl",
    "mount": "mount",
}

LINKS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "ingress",
    "netpol",
    "hostpath-provisioner",
)

# Where the linker writes the version that the API server and kubectl report.
_VERSIONED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True)
class Programs:
    """The built programs and images of one version.

    Attributes:
        folder: where they are.
        images: full names of the images: ``pause``, ``coredns``, ``testserver``.
    """

    folder: Path
    images: dict[str, str]

    @property
    def bin(self) -> Path:
        """The folder with kubectl, helm and the cluster's own programs."""
        return self.folder / "bin"

    def archive(self, image: str) -> Path:
        """The OCI archive of an image."""
        return self.folder / "images" / f"{image}.tar"


def need_root(what: str) -> None:
    """Say so if this is not root's process."""
    if os.geteuid() != 0:
        raise Problem(
            f"{what} needs root: it makes network bridges, mounts and containers",
            "Run it as root (or with sudo -E), or set KUBECONFIG to an existing cluster",
        )


def parse_go_version(text: str) -> tuple[int, int] | None:
    """``go version go1.26.8 linux/amd64`` → ``(1, 26)``; None if it is not that."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def go_version(least: tuple[int, int] = GO, what: str = "the local cluster") -> str:
    """Go's full version.

    Args:
        least: the oldest version that will do.
        what: what is to be built, for the message.

    Raises:
        Problem: Go is missing or too old.
    """
    wanted = f"Go {least[0]}.{least[1]} or newer"
    cure = f"Install {wanted} and put it on the PATH, or set KUBECONFIG to an existing cluster"
    need = f"{wanted} is needed to build {what}"
    try:
        # GOTOOLCHAIN: a newer toolchain is not fetched behind the reader's back
        text = subprocess.run(
            ["go", "version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        raise Problem(f"{need} but none was found", cure) from None
    version = parse_go_version(text)
    if version is None or version < least:
        raise Problem(f"{need} but {text.strip()!r} was found", cure)
    return text.split()[2]


def _sources(folder: Path) -> list[Path]:
    files = [*folder.rglob("*.go"), folder / "go.mod", folder / "go.sum"]
    return sorted(f for f in files if not f.name.endswith("_test.go"))


def _key(folder: Path, go: str, *extra: str) -> str:
    sources = _sources(folder)
    return cache.digest(sources, go, *(str(s.relative_to(folder)) for s in sources), *extra)


def _need_space() -> None:
    free = shutil.disk_usage(cache.home()).free / 1e9
    if free < FREE_GB:
        raise Problem(
            f"building the local cluster takes up to {FREE_GB} GB and only {free:.0f} GB are free at {cache.home()}",
            "Free some space or set CYTOMINE_SPAWNER_CACHE to a folder on another disk",
        )


def _generous() -> dict[str, str]:
    """Let the compiler collect no garbage where there is memory for that."""
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < (os.cpu_count() or 1) * COMPILER_MEMORY:
        return {}
    return {"GOGC": "off", "GOMEMLIMIT": str(COMPILER_MEMORY)}


def _go(args: list[str], what: str, folder: Path, step=None) -> str:
    count = 0

    def line(text: str) -> None:
        nonlocal count
        if step and "/" in text and not text.startswith(("#", "go: ")):
            count += 1
            step.detail(f"{count} packages compiled, {text.strip().rsplit('/', 2)[-1]}")
        elif step and text.startswith("go: downloading"):
            step.detail(text.removeprefix("go: "))

    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    env |= _generous()
    return proc.run(["go", *args], what, log="go", timeout=3600, cwd=folder, env=env, each_line=line)


def _module_version(module: str, folder: Path) -> str:
    return _go(
        ["list", "-m", "-f", "{{.Version}}", module], f"reading the version of {module}", folder
    ).split()[-1]


def compile_programs(
    out: Path, names: tuple[str, ...] = ("hyperkube", "coredns", "helm", "pause", "testserver"), step=None
) -> None:
    """Compile some of the programs into a folder (each alone, for timing, or all at once)."""
    tools = HERE / "tools"
    kube = _module_version("k8s.io/kubernetes", tools)
    minor = kube.split(".")[1]
    flags = [
        "-s",
        "-w",
        "-X",
        f"helm.sh/helm/v3/internal/version.version={_module_version('helm.sh/helm/v3', tools)}",
    ]
    for package in _VERSIONED:
        values = {
            "gitVersion": kube,
            "gitMajor": "1",
            "gitMinor": minor,
            "gitTreeState": "clean",
            "gitCommit": "go-module",
            "buildDate": "1970-01-01T00:00:00Z",
        }
        for key, value in values.items():
            flags += ["-X", f"{package}.{key}={value}"]
    packages = ["helm.sh/helm/v3/cmd/helm" if n == "helm" else f"./{n}" for n in names]
    out.mkdir(parents=True, exist_ok=True)
    _go(
        ["build", "-v", "-trimpath", *NO_DEBUG_INFO, "-ldflags", " ".join(flags), "-o", f"{out}/", *packages],
        "compiling the cluster's programs",
        tools,
        step,
    )
    if "hyperkube" in names:
        for link in LINKS:
            (out / link).symlink_to("hyperkube")


def _fill(folder: Path, step) -> None:
    compile_programs(folder / "bin", step=step)
    step.detail("images")
    (folder / "images").mkdir()
    names = {}
    for image in ("pause", "coredns", "testserver"):
        program = folder / "bin" / image
        names[image] = mkimage.write(
            folder / "images" / f"{image}.tar",
            f"localhost/cytomine-spawner/{image}",
            {f"/{image}": program},
            [f"/{image}"],
            folders=["/tmp"],  # noqa: S108  a path in the image
            architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        )
        if image != "coredns":
            program.unlink()  # only runs in containers
    (folder / "images.json").write_text(json.dumps(names))


def _load(folder: Path) -> Programs:
    return Programs(folder, json.loads((folder / "images.json").read_text()))


def build(console: Console) -> Programs:
    """Install and compile what the cluster needs; a second call finds it done.

    Raises:
        Problem: Go, space or a registry is missing.
    """
    host.need(console, PACKAGES)
    key = _key(
        HERE / "tools",
        go_version(),
        platform.machine(),
        cache.digest([HERE / "mkimage.py", HERE / "programs.py"]),
    )
    shelf = cache.home() / "cluster-programs" / key
    if shelf.is_dir():
        return _load(cache.built("cluster-programs", key, lambda _: None))
    _need_space()
    with console.step("Compiling Kubernetes") as step:
        return _load(cache.built("cluster-programs", key, lambda folder: _fill(folder, step)))


def build_kwok(console: Console) -> Path:
    """KWOK, which plays nodes and pods for the tests on an API server alone: the program's path."""
    return build_tool(console, HERE / "kwok", "KWOK", "sigs.k8s.io/kwok/cmd/kwok", "cluster-kwok") / "kwok"


def build_tool(
    console: Console,
    source: Path,
    title: str,
    package: str,
    kind: str,
    *,
    flags: str = "-s -w",
    least: tuple[int, int] = GO,
) -> Path:
    """Compile one program of a Go module; a second call finds it done.

    Args:
        console: told of the step.
        source: the folder with the go.mod that names the module as a tool.
        title: the program's name in messages.
        package: its main package.
        kind: its place in the cache.
        flags: for the linker.
        least: the oldest version of Go that will do.

    Returns:
        The folder with the program.

    Raises:
        Problem: Go, space or a registry is missing.
    """
    key = _key(source, go_version(least, title), platform.machine())
    if not (cache.home() / kind / key).is_dir():
        _need_space()
        with console.step(f"Compiling {title}") as step:

            def fill(folder: Path) -> None:
                args = [
                    "build",
                    "-v",
                    "-trimpath",
                    *NO_DEBUG_INFO,
                    "-ldflags",
                    flags,
                    "-o",
                    f"{folder}/",
                    package,
                ]
                _go(args, f"compiling {title}", source, step)

            cache.built(kind, key, fill)
    return cache.built(kind, key, lambda _: None)
