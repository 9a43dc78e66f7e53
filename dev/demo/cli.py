"""``./demo``: the command."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from pathlib import Path

from dev import cache, proc
from dev.console import Console, Problem
from dev.demo import install

USAGE = """\
./demo            build what is missing, start the cluster and the hub, print the address
./demo stop       stop the cluster; users, notebooks' files and images stay
./demo reset      stop it and delete all its state; what was built stays in the cache
./demo status     what runs, and how much memory it takes

With KUBECONFIG set, the demo goes to that cluster and starts none of its own; docs/developers/clusters.md
says how its images get there.
"""


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./demo", usage="./demo [up|stop|reset|status] [--port N]", description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("action", nargs="?", default="up", choices=["up", "stop", "reset", "status"])
    parser.add_argument(
        "--port",
        type=int,
        default=int(os.environ.get("CYTOMINE_DEMO_PORT", "8000")),
        help="the port on this machine at which the cluster's ingress listens (default 8000)",
    )
    parser.add_argument(
        "--image-prefix",
        default="",
        help="with KUBECONFIG: where the cluster pulls the images from; they must have been pushed there",
    )
    parser.add_argument(
        "--ingress-class",
        default="",
        help="with KUBECONFIG: the ingress class to use (default: the cluster's own default)",
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the command; a failure is one sentence, its traceback goes to the log."""
    args = _arguments(argv)
    console = Console()
    try:
        foreign = os.environ.get("KUBECONFIG", "")
        if args.action == "up":
            target = install.prepare(console, args.port, foreign, args.image_prefix, args.ingress_class)
            demo = install.install(console, target, install.DEMO)
            (proc.log_folder() / "demo-steps.json").write_text(json.dumps(console.times))
            _welcome(console, demo)
        elif args.action == "status":
            return install.status(console, foreign)
        elif args.action == "stop":
            install.stop(console, foreign)
        else:
            install.reset(console, foreign)
    except Problem as problem:
        _log_traceback()
        console.say(f"\n{problem}")
        return 1
    except KeyboardInterrupt:
        console.say("\nInterrupted. Run ./demo again to go on from here.")
        return 130
    except Exception as error:
        path = _log_traceback()
        console.say(
            f"\nThe demo met a fault of its own ({type(error).__name__}). The details are in {path}; run ./demo again, or ./demo reset first."
        )
        return 1
    return 0


def _log_traceback() -> Path:
    path = proc.log_folder() / "demo.log"
    with path.open("a") as f:
        traceback.print_exc(file=f)
    return path


def _welcome(console: Console, demo: install.Installed) -> None:
    from dev import lslogin

    console.say(f"\nThe hub is ready:  {demo.url}\n")
    console.say("Log in as one of the test users:")
    for user in json.loads((lslogin.HERE / "users.json").read_text())["users"]:
        console.say(f"  {user['given_name'] + ' ' + user['family_name']:<18} {user['purpose']}")
    console.say("\n./demo stop ends it and keeps the users' files; ./demo reset deletes them.")
    if sys.stdout.isatty():
        console.say(f"Logs: {proc.log_folder()}   Cache: {cache.home()}")
