"""``python3 -m dev.cluster``: the local cluster by hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dev import cluster
from dev.cluster.programs import compile_programs
from dev.console import Console, Problem


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.cluster", description=cluster.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="install and compile what the cluster needs")
    build.add_argument("--only", nargs="+", metavar="PROGRAM", help="compile just these (for timing)")
    build.add_argument("--out", type=Path, help="with --only: the folder to compile into")
    build.add_argument("--kwok", action="store_true", help="KWOK, too, which only the tests need")
    up = commands.add_parser("up", help="start the cluster")
    up.add_argument(
        "--port",
        type=int,
        default=cluster.PORT,
        help="the ingress's port on 127.0.0.1 (default: %(default)s)",
    )
    up.add_argument("--audit", type=Path, help="write an audit log to this file")
    down = commands.add_parser("down", help="stop the cluster; its objects, images and volumes stay")
    down.add_argument("--wipe", action="store_true", help="delete them, too")
    commands.add_parser("status", help="the parts and whether all is well (exit code 1 if not)")
    commands.add_parser("kubeconfig", help="print the kubeconfig's path")
    importer = commands.add_parser("import", help="import OCI archives that carry their image's name")
    importer.add_argument("archives", nargs="+", type=Path)
    api_up = commands.add_parser("api-up", help="start an API server alone; prints its kubeconfig's path")
    api_up.add_argument("folder", type=Path)
    api_up.add_argument("--port", type=int, default=0, help="the first of 6 ports (default: free ones)")
    api_up.add_argument("--nodes", type=int, default=0, help="nodes that KWOK plays")
    api_up.add_argument("--controllers", action="store_true", help="run the controller manager, too")
    api_up.add_argument("--audit", type=Path, help="write an audit log to this file")
    api_down = commands.add_parser("api-down", help="stop an API server")
    api_down.add_argument("folder", type=Path)
    given = parser.parse_args(words)
    # what is printed for scripts goes to standard output alone
    console = Console(sys.stderr if given.command in ("api-up", "kubeconfig") else None)
    try:
        return _do(given, console, parser)
    except Problem as problem:
        print(f"✗ {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _do(given: argparse.Namespace, console: Console, parser: argparse.ArgumentParser) -> int:
    match given.command:
        case "build" if given.only:
            if not given.out:
                parser.error("--only needs --out")
            with console.step(f"Compiling {' '.join(given.only)}") as step:
                compile_programs(given.out.resolve(), tuple(given.only), step)
        case "build":
            console.say(str(cluster.build(console).folder))
            if given.kwok:
                console.say(str(cluster.build_kwok(console)))
        case "up":
            path = cluster.up(console, given.port, given.audit)
            console.say(f"KUBECONFIG={path}")
            console.say(f"kubectl and helm: {cluster.bin(console)}")
        case "down":
            cluster.down(console, wipe=given.wipe)
        case "status":
            return 0 if cluster.status(console) else 1
        case "kubeconfig":
            print(cluster.kubeconfig())
        case "import":
            for name in cluster.import_images(console, given.archives):
                console.say(name)
        case "api-up":
            print(
                cluster.api_up(
                    given.folder,
                    given.port,
                    nodes=given.nodes,
                    controllers=given.controllers,
                    audit=given.audit,
                    console=console,
                )
            )
        case "api-down":
            cluster.api_down(given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
