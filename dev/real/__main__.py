"""``python -m dev.real IMAGES``: the tests of ``tests/real`` with Cytomine's own servers."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from dev import cache, host, real
from dev.console import Console, Problem
from dev.demo import install
from dev.rings import environments


def main(argv: list[str]) -> int:
    """Run the command; a failure is one sentence."""
    parser = argparse.ArgumentParser(prog="python -m dev.real", description=__doc__)
    parser.add_argument(
        "images", nargs="?", default=real.given(), help="a folder of OCI archives, or component=image,…"
    )
    parser.add_argument("--port", type=int, default=8000, help="the port of the cluster's ingress")
    parser.add_argument("--only-install", action="store_true", help="install the hub and run no test")
    parser.add_argument("--remove", action="store_true", help="delete the hub and all that its people stored")
    parser.epilog = "What stands after -- goes to pytest."
    at = argv.index("--") if "--" in argv else len(argv)
    args, more = parser.parse_args(argv[:at]), argv[at + 1 :]
    console = Console()
    try:
        environments.enter(["-m", "dev.real", *argv], "kubespawner", "pytest")
        if args.remove:
            install.remove(console, install.local_kube(), real.PLACE)
            return 0
        if not args.images:
            raise Problem("No images of Cytomine were named", real.MISSING)
        if args.only_install:
            target = install.prepare(console, args.port, os.environ.get("KUBECONFIG", ""))
            console.say(f"\nThe hub is ready:  {real.hub(console, target, args.images).url}")
            return 0
        # The tests start it themselves, on a machine that may never have had one.
        host.need(console, host.BROWSER)
    except Problem as problem:
        console.say(f"\n{problem}")
        return 1
    # The tests run in another folder than the command may have been given in.
    images = args.images if "=" in args.images else str(Path(args.images).resolve())
    env = {**os.environ, real.IMAGES: images, "CYTOMINE_TEST_PORT": str(args.port)}
    # Whoever names tests wants these alone.
    tests = [] if any(word.startswith("tests/") for word in more) else ["tests/real"]
    command = [sys.executable, "-m", "pytest", "-v", "-s", *tests, *more]
    return subprocess.run(command, env=env, cwd=cache.ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
