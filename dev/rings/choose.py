"""Which tests a change can break, and which files have the tests that somebody names."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from dev.cache import ROOT
from dev.console import Problem
from dev.rings.uses import Uses, is_test, nodes, parse

RINGS = ("lint", "unit", "api", "cluster", "browser")
PODS = ("cluster", "browser")
# They run the notebooks that teach.
NOTEBOOKS = ("tests/cluster/test_notebooks.py", "tests/browser/test_annotate_journey.py")
# Uses that neither an import nor a name in a string shows.
HIDDEN: dict[str, tuple[str, ...]] = {
    # JupyterLab finds its extension by files that pyproject.toml puts into the environment.
    "tests/support/jupyter.py": ("cytomine_spawner/notebook/lab/",),
    # Programs that ./test builds or fetches, and names to the tests in the environment.
    "tests/support/gateway.py": ("dev/host.py",),
    "tests/support/gateway_login.py": ("dev/oauth2proxy/",),
    "dev/rings/runs.py": ("tests/support/timing.py",),
}
# It looks at the whole checkout, whose files this module and it name only to speak of them.
LOOKS_AT_ALL = "tests/unit/dev/test_dev_choose.py"
LISTS = ("dev/rings/choose.py", LOOKS_AT_ALL)


@dataclass(frozen=True)
class Rule:
    """What files can break, beside the tests that use them by imports or names.

    Attributes:
        files: patterns from the top of the checkout; a star stands for slashes, too.
        why: what happens to the files, as the end of the sentence "a file of this kind ...".
        rings: rings that run as a whole.
        tests: patterns of test files that run.
        used: whether there must be a test that uses such a file: all runs where none is found.
    """

    files: tuple[str, ...]
    why: str
    rings: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    used: bool = False


# The first rule whose pattern fits a file counts. A file that fits none can break everything.
RULES = (
    Rule(
        (
            "pyproject.toml",
            "tests/constraints.txt",
            "tests/conftest.py",
            "dev/rings/cli.py",
            "dev/rings/environments.py",
            "dev/rings/groups.py",
            "dev/rings/runs.py",
            "dev/venv.py",
            "test",
        ),
        "decides how every test runs",
        RINGS,
    ),
    Rule(
        (
            "*.md",
            "docs/*",
            "benchmarks/*",
            "demo",
            "LICENSE",
            ".gitignore",
            ".pre-commit-config.yaml",
            ".ci/*",
            "*/py.typed",
        ),
        "runs in no test",
    ),
    Rule(
        ("tests/real/covered.py",),
        "reads the list of requests",
        tests=("tests/unit/real/test_real_covered.py",),
    ),
    Rule(("dev/real/*", "tests/real/*"), "runs only where somebody has Cytomine's own images"),
    Rule(("helm/move-users.sh",), "moves installations from before", tests=("tests/api/test_move_users.py",)),
    Rule(("helm/*",), "is part of the chart, which installs the tests' hub", PODS),
    Rule(("hub_config/*",), "configures the tests' hub", PODS),
    Rule(("images/*", ".dockerignore", "setup.py"), "is part of the images", PODS),
    Rule(("notebooks/*",), "runs in a notebook's pod", tests=NOTEBOOKS),
    Rule(("dev/cluster/*",), "is part of the cluster and of the API server", ("api", *PODS)),
    Rule(("dev/archive/*",), "stands in for the archive", used=True),
    Rule(("dev/rings/*",), "starts and chooses tests", used=True),
    Rule(("dev/*",), "installs the tests' hub, or runs in its cluster", PODS),
    Rule(
        ("cytomine_spawner/notebook/lab/*",),
        "is loaded by every notebook's server",
        tests=("tests/cluster/test_hub.py", "tests/browser/test_journey.py", *NOTEBOOKS),
        used=True,
    ),
    Rule(("cytomine_spawner/archive/*",), "reads the archive, from notebooks and by a command", used=True),
    Rule(("cytomine_spawner/notebook/*",), "is a library for notebooks", tests=NOTEBOOKS, used=True),
    Rule(("cytomine_spawner/*",), "runs in pods", PODS),
    Rule(("tests/*",), "is part of the tests", used=True),
)


@dataclass
class Ring:
    """What runs of a ring.

    Attributes:
        whole: why all of it runs, as a sentence without a full stop; empty where it does not.
        files: the test files that run otherwise, each with the reason.
    """

    whole: str = ""
    files: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.whole or self.files)


@dataclass
class Chosen:
    """What a change can break.

    Attributes:
        changed: the files that differ.
        rings: for each ring what runs of it.
    """

    changed: list[str]
    rings: dict[str, Ring]

    def paths(self, ring: str) -> list[Path]:
        """What pytest gets for a ring: its folder, some of its files, or nothing."""
        found = self.rings[ring]
        return [Path("tests", ring)] if found.whole else [Path(file) for file in found.files]

    def lines(self) -> list[str]:
        """The reasons, to be printed."""
        found = []
        for name, ring in self.rings.items():
            if ring.whole:
                found.append(f"{name}: all, as {ring.whole}")
            elif ring.files:
                found.append(f"{name}: {len(ring.files)} files")
                found += [f"  {file}: {why}" for file, why in ring.files.items()]
            else:
                found.append(f"{name}: nothing")
        return found


def since(revision: str, root: Path = ROOT) -> Chosen:
    """What can break by all that was changed since HEAD left a revision, committed or not.

    Args:
        revision: a branch, tag or commit.
        root: the checkout.

    Raises:
        Problem: git does not know the revision, or this is no checkout of git.
    """
    # Both names of a renamed file: who still uses the former one breaks.
    differ = _git(root, "diff", "--name-only", "--no-renames", "--merge-base", revision, "--")
    new = _git(root, "ls-files", "--others", "--exclude-standard")
    uses = Uses(root, {*_git(root, "ls-files"), *new, *differ}, HIDDEN, LISTS)
    return chosen(sorted({*differ, *new}), uses, root)


def chosen(changed: list[str], uses: Uses, root: Path = ROOT) -> Chosen:
    """What can break by a change of files.

    Args:
        changed: the files, from the top of the checkout.
        uses: the uses among all files, those that were deleted included.
        root: the checkout, where a test file must be in order to run.
    """
    found = Chosen(changed, {ring: Ring() for ring in RINGS})
    if not changed:
        return found
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    found.rings["lint"].whole = f"{changed[0]}{more} changed"
    tests = sorted(file for file in uses.files if is_test(file) and (root / file).exists())
    of_ring = {ring: [t for t in tests if t.startswith(f"tests/{ring}/")] for ring in RINGS}
    ways = uses.users(changed)
    for file in changed:
        rule = rule_of(file)
        if rule is None:
            _whole(found, RINGS, f"{file} changed and no rule in dev/rings/choose.py tells what it can break")
            continue
        _whole(found, rule.rings, f"{file} changed, which {rule.why}")
        if rule.used and (root / file).exists() and not any(map(is_test, uses.users([file]))):
            _whole(found, RINGS, f"{file} changed and no test is seen to use it")
        for test in tests:
            if any(fnmatchcase(test, pattern) for pattern in rule.tests):
                ways.setdefault(test, [("runs", file)])
    if not all(file.endswith(".md") for file in changed):
        ways.setdefault(LOOKS_AT_ALL, [("looks at", changed[0])])
    for test in tests:
        if test in ways:
            folder = test.split("/")[1]
            if folder in found.rings:
                found.rings[folder].files[test] = _reason(ways[test])
    for name, ring in found.rings.items():
        if ring.files and not ring.whole and len(ring.files) == len(of_ring[name]):
            ring.whole = f"each of its {len(ring.files)} files can break: {next(iter(ring.files.values()))}"
    return found


def rule_of(file: str) -> Rule | None:
    """The rule that counts for a file."""
    return next((r for r in RULES if any(fnmatchcase(file, pattern) for pattern in r.files)), None)


def _whole(found: Chosen, rings: Iterable[str], why: str) -> None:
    for ring in rings:
        if not found.rings[ring].whole or ring == "lint":
            found.rings[ring].whole = why


def _reason(way: list[tuple[str, str]]) -> str:
    """The way from a test file to what changed, in words."""
    if not way:
        return "changed"
    steps: list[str] = []
    for _, node in way:
        file = node.partition("#")[0]
        if file not in steps:
            steps.append(file)
    through = f" through {', '.join(steps[:-1])}" if steps[:-1] else ""
    return f"{way[-1][0] if not through else way[0][0]} {steps[-1]}{through}"


def _git(root: Path, *args: str) -> list[str]:
    """The files that a command of git lists."""
    command = ["git", "-C", str(root), args[0], "-z", *args[1:]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Problem("Choosing tests by a change needs the program git", "Install git") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise Problem(f"git does not tell what changed: {said}", "Name a branch or commit of this checkout")
    return [file for file in done.stdout.split("\0") if file]


def named(words: Sequence[str], rings: Iterable[str] = RINGS[1:], root: Path = ROOT) -> list[Path]:
    """The test files and folders that can hold what somebody names, from the top of the checkout.

    Args:
        words: each a path, a test's id (``tests/unit/test_x.py::test_y[z]``) or an expression of ``pytest -k``.
        rings: where to look for the words of an expression.
        root: the checkout.

    Returns:
        for an expression the files that have any of its words that are not negated, or the rings' folders where a word
        is in none: it may be of a parameter, and those are known only when the tests are imported.

    Raises:
        Problem: a path leads to nothing.
    """
    found: dict[Path, None] = {}
    for word in words:
        if "::" in word or "/" in word or word.endswith(".py"):
            found[_path(word, root)] = None
            continue
        folders = [folder for ring in rings if (folder := root / "tests" / ring).is_dir()]
        files = sorted(file for folder in folders for file in folder.rglob("test_*.py"))
        for path in _holders(_positive(word), files, root) or folders:
            found[path.relative_to(root)] = None
    return list(found)


def by_ring(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Paths from the top of the checkout by the ring that runs them; all rings for what is above their folders.

    Raises:
        Problem: a path belongs to no ring.
    """
    found: dict[str, list[Path]] = {}
    for path in paths:
        parts = path.parts
        if parts[:1] == ("tests",) and len(parts) > 1 and parts[1] in RINGS[1:]:
            found.setdefault(parts[1], []).append(path)
        elif parts in ((), ("tests",)):
            for ring in RINGS[1:]:
                found.setdefault(ring, []).append(Path("tests", ring))
        else:
            raise Problem(
                f"{path} belongs to no ring", f"Name something below tests/{{{','.join(RINGS[1:])}}}"
            )
    return {ring: found[ring] for ring in RINGS if ring in found}


def _path(word: str, root: Path) -> Path:
    given = Path(word.partition("::")[0])
    for path in (root / given, Path.cwd() / given):
        if path.exists() and path.resolve().is_relative_to(root.resolve()):
            return path.resolve().relative_to(root.resolve())
    raise Problem(f"There is no {given}", "Name a test file, or a word of a test's name behind -k")


# What pytest takes for a word of an expression.
_WORD = re.compile(r"[()]|[^\s()]+")


def _positive(expression: str) -> set[str]:
    """The words of an expression that are not negated, in lower case."""
    found: set[str] = set()
    negated, pending = [False], False
    for word in _WORD.findall(expression):
        if word == "(":
            negated.append(negated[-1] != pending)
            pending = False
        elif word == ")":
            if len(negated) > 1:
                negated.pop()
        elif word == "not":
            pending = not pending
        elif word in ("and", "or"):
            pending = False
        else:
            if negated[-1] == pending:
                found.add(word.lower())
            pending = False
    return found


def _holders(words: set[str], files: list[Path], root: Path) -> list[Path]:
    """The files with any of the words; none where there is no word, or one that is in no file."""
    missing, found = set(words), []
    for file in files:
        if having := {word for word in words if word in _names(file, root, words)}:
            missing -= having
            found.append(file)
    return [] if missing else found


def _names(file: Path, root: Path, words: set[str]) -> str:
    """Whatever ``-k`` can find of a file without importing it, in lower case: names, marks, parameters written out."""
    found = list(file.relative_to(root / "tests").parts[1:])
    text = file.read_text(errors="replace").lower()
    # Most files have none of the words at all, and reading a text takes a hundredth of parsing it.
    for statement in parse(file) if any(word in text for word in words) else []:
        for node in nodes(statement):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if node.name.startswith(("test", "Test")):
                    found.append(node.name)
            elif isinstance(node, ast.ImportFrom):
                found += [alias.asname or alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute):
                if isinstance(node.value, ast.Attribute) and node.value.attr == "mark":
                    found.append(node.attr)
            elif isinstance(node, ast.Call) and _parametrizes(node):
                found += [
                    c.value for c in nodes(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)
                ]
    return "\n".join(found).lower()


def _parametrizes(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("parametrize", "param", "fixture")
