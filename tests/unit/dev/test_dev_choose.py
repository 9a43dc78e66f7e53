"""What a change can break is chosen, with the reason, and nothing that it can break is left out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.cache import ROOT
from dev.console import Problem
from dev.rings import choose
from dev.rings.choose import Chosen, Rule
from dev.rings.uses import Uses, is_test

# A small project of the same shape as this one. test_far meets core.py by way of a support module and a function's import.
TREE = {
    "pyproject.toml": "",
    "README.md": "",
    "docs/page.md": "",
    "cytomine_spawner/__init__.py": "def __getattr__(name):\n    from .spawner import Spawner\n    return Spawner\n",
    "cytomine_spawner/spawner.py": "class Spawner: pass\n",
    "cytomine_spawner/core.py": "",
    "cytomine_spawner/far.py": "def late():\n    from . import core\n",
    "cytomine_spawner/typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .core import x\n",
    "cytomine_spawner/pages.py": "from pathlib import Path\nPAGES = Path(__file__).parent / 'templates'\n",
    "cytomine_spawner/templates/page.html": "",
    "cytomine_spawner/templates/more/part.html": "",
    "cytomine_spawner/served/__init__.py": "",
    "cytomine_spawner/served/__main__.py": "from . import engine\n",
    "cytomine_spawner/served/engine.py": "",
    "cytomine_spawner/notebook/__init__.py": "",
    "cytomine_spawner/notebook/tiles.py": "",
    "helm/chart/values.yaml": "",
    "notebooks/01_first.ipynb": '{"cells": [{"cell_type": "code", "source": ["from cytomine_spawner.notebook import tiles"]}]}',
    "tests/__init__.py": "",
    "tests/conftest.py": "import pytest\n",
    "tests/support/__init__.py": "",
    "tests/support/path.py": "import cytomine_spawner.far\n",
    "tests/support/door.py": "from cytomine_spawner.core import x\n",
    "tests/support/plugin.py": "from cytomine_spawner import pages\n",
    "tests/support/program.py": "import cytomine_spawner.core\n",
    "tests/unit/conftest.py": """
import pytest
from tests.support.door import opened
from tests.support import plugin
def help(): return opened()
@pytest.fixture
def door(): return help()
@pytest.fixture(autouse=True)
def always(): plugin.work()
""",
    "tests/unit/test_direct.py": "from cytomine_spawner import core\n",
    "tests/unit/test_far.py": "from tests.support.path import far\n",
    "tests/unit/test_typed.py": "from cytomine_spawner import typed\n",
    "tests/unit/test_lazy.py": "from cytomine_spawner import Spawner\n",
    "tests/unit/test_door.py": "def test_a(door): pass\n",
    "tests/unit/test_own_door.py": "import pytest\n@pytest.fixture\ndef door(): pass\ndef test_a(door): pass\n",
    "tests/unit/test_module.py": "import sys\nCOMMAND = [sys.executable, '-m', 'cytomine_spawner.served', '--port=1']\n",
    "tests/unit/test_path.py": "from dev.cache import ROOT\nPROGRAM = ROOT / 'tests' / 'support' / 'program.py'\n",
    "tests/unit/test_text.py": 'CODE = """\nimport sys\nfrom cytomine_spawner.notebook import tiles\n"""\n',
    "tests/unit/test_chart.py": "CHART = 'helm/chart'\n",
    "tests/unit/test_book.py": "BOOKS = 'notebooks/01_first.ipynb'\n",
    "tests/unit/test_docs.py": "from dev.cache import ROOT\nPAGE = ROOT / 'docs' / 'page.md'\n",
    "tests/unit/test_plain.py": "def test_small():\n    '''As docs/page.md says.'''\n",
    "tests/unit/deep/test_deep.py": "def test_a(door): pass\n",
    "tests/api/test_api.py": "pytest_plugins = ['tests.support.plugin']\n",
    "tests/cluster/test_notebooks.py": "",
    "tests/cluster/test_pods.py": "",
    "tests/browser/test_annotate_journey.py": "",
    "tests/browser/test_page.py": "",
}


def git(root: Path, *args: str) -> None:
    command = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@x", *args]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the small project, to be copied."""
    top = tmp_path_factory.mktemp("original")
    for file, text in TREE.items():
        path = top / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (top / ".gitignore").write_text("*.log\n")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "All")
    return top


@pytest.fixture
def tree(original: Path, tmp_path: Path) -> Path:
    """A checkout of the small project."""
    return shutil.copytree(original, tmp_path / "tree")


@pytest.fixture
def change(tree: Path) -> Callable[..., Chosen]:
    """Change files of the small project and see what is chosen."""

    def changed(*files: str) -> Chosen:
        for file in files:
            path = tree / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(TREE.get(file, "") + "\n")
        return choose.since("main", tree)

    return changed


def unit(found: Chosen) -> set[str]:
    """The unit tests' files that run, by what is behind ``test_``."""
    assert not found.rings["unit"].whole
    return {Path(file).stem.removeprefix("test_") for file in found.rings["unit"].files}


def whole(found: Chosen) -> set[str]:
    return {name for name, ring in found.rings.items() if ring.whole}


def test_nothing_changed_and_nothing_runs(change: Callable[..., Chosen]) -> None:
    found = change()
    assert (found.changed, [ring for ring in found.rings.values() if ring]) == ([], [])


def test_a_module_reaches_tests_by_functions_type_checking_support_and_fixtures_that_are_asked_for(
    change: Callable[..., Chosen],
) -> None:
    found = change("cytomine_spawner/core.py")
    assert unit(found) == {"direct", "far", "typed", "door", "deep", "path"}
    assert whole(found) == {"lint", "cluster", "browser"}
    files = found.rings["unit"].files
    assert files["tests/unit/test_direct.py"] == "imports cytomine_spawner/core.py"
    assert files["tests/unit/test_far.py"] == (
        "imports cytomine_spawner/core.py through tests/support/path.py, cytomine_spawner/far.py"
    )
    assert "  tests/unit/test_direct.py: imports cytomine_spawner/core.py" in found.lines()


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        # far and path have the package itself, from which they could take a name
        ("cytomine_spawner/spawner.py", {"lazy", "far", "path"}),
        ("cytomine_spawner/served/engine.py", {"module"}),
        ("tests/support/program.py", {"path"}),
        ("cytomine_spawner/notebook/tiles.py", {"text", "book"}),
        ("notebooks/01_first.ipynb", {"book"}),
        ("helm/chart/values.yaml", {"chart"}),
        ("helm/chart/templates/new.yaml", {"chart"}),
        ("docs/page.md", {"docs"}),
        ("tests/unit/test_plain.py", {"plain"}),
        ("README.md", set()),
    ],
)
def test_a_file_reaches_the_tests_that_start_or_read_it(
    change: Callable[..., Chosen], file: str, tests: set[str]
) -> None:
    assert unit(change(file)) == tests


@pytest.mark.parametrize("file", ["page.html", "more/part.html", "new.html"])
def test_a_packages_data_reach_who_uses_the_module_that_reads_them(
    change: Callable[..., Chosen], file: str
) -> None:
    # an automatic fixture of the unit ring and a plugin of the api ring's file import it
    found = change(f"cytomine_spawner/templates/{file}")
    assert whole(found) == {"lint", "unit", "api", "cluster", "browser"}
    reason = "imports tests/unit/conftest.py"
    assert reason not in found.rings["unit"].whole
    assert f"cytomine_spawner/templates/{file} through tests/unit/conftest.py" in found.rings["unit"].whole


def test_the_library_for_notebooks_reaches_only_the_pods_tests_that_run_notebooks(
    change: Callable[..., Chosen],
) -> None:
    found = change("cytomine_spawner/notebook/tiles.py")
    assert found.paths("cluster") == [Path("tests/cluster/test_notebooks.py")]
    assert found.paths("browser") == [Path("tests/browser/test_annotate_journey.py")]
    assert found.paths("api") == []


@pytest.mark.parametrize(
    "file", ["pyproject.toml", "tests/conftest.py", "new/folder/thing.xyz", "tests/support/alone.py"]
)
def test_what_decides_for_all_and_what_nothing_is_known_of_runs_everything(
    change: Callable[..., Chosen], file: str
) -> None:
    found = change(file)
    assert whole(found) == set(choose.RINGS)
    assert [found.paths(ring) for ring in choose.RINGS[1:]] == [[Path("tests", r)] for r in choose.RINGS[1:]]
    assert all(file in line for line in found.lines())


def test_text_for_people_runs_the_linter_alone(change: Callable[..., Chosen]) -> None:
    found = change("README.md")
    assert [name for name, ring in found.rings.items() if ring] == ["lint"]


def test_a_deleted_module_reaches_who_still_imports_it_and_a_renamed_one_too(tree: Path) -> None:
    (tree / "cytomine_spawner/core.py").rename(tree / "cytomine_spawner/heart.py")
    (tree / "tests/unit/test_far.py").unlink()
    assert unit(choose.since("main", tree)) == {"direct", "typed", "door", "deep", "path"}


def test_commits_since_the_fork_count_with_what_is_not_committed_and_what_others_did_meanwhile_does_not(
    tree: Path,
) -> None:
    git(tree, "checkout", "-q", "-b", "mine")
    (tree / "docs/page.md").write_text("mine")
    git(tree, "commit", "-qam", "Mine")
    git(tree, "checkout", "-q", "main")
    (tree / "pyproject.toml").write_text("theirs")
    git(tree, "commit", "-qam", "Theirs")
    git(tree, "checkout", "-q", "mine")
    (tree / "tests/unit/test_new.py").write_text("")
    (tree / "some.log").write_text("ignored")
    found = choose.since("main", tree)
    assert found.changed == ["docs/page.md", "tests/unit/test_new.py"]
    assert unit(found) == {"docs", "new"}


def test_a_file_that_cannot_be_read_as_python_still_reaches_its_users(tree: Path) -> None:
    (tree / "cytomine_spawner/core.py").write_text("def broken(:\n")
    (tree / "tests/unit/test_plain.py").write_text("def broken(:\n")
    assert {"direct", "plain"} <= unit(choose.since("main", tree))


def test_an_unknown_revision_and_a_folder_without_git_are_said(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(Problem, match=r"git does not tell what changed: .*nowhere"):
        choose.since("nowhere", tree)
    with pytest.raises(Problem, match="git does not tell what changed"):
        choose.since("main", tmp_path_factory.mktemp("plain"))


# The tree of this checkout.


@pytest.fixture(scope="module")
def files() -> list[str]:
    """All files of this checkout, as git knows them."""
    known = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    said = subprocess.run(known, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(file for file in said.split("\0") if file and (ROOT / file).exists())


@pytest.fixture(scope="module")
def uses(files: list[str]) -> Uses:
    """The uses among them."""
    return Uses(ROOT, files, choose.HIDDEN, choose.LISTS)


@pytest.fixture
def broken(uses: Uses) -> Callable[[str], Chosen]:
    """What a change of a file of this checkout can break."""
    return lambda file: choose.chosen([file], uses)


def test_a_module_of_this_checkout_reaches_its_tests_and_not_those_of_others(
    broken: Callable[[str], Chosen],
) -> None:
    found = broken("cytomine_spawner/blueprint/render.py").rings["unit"].files
    assert "tests/unit/blueprint/test_render.py" in found
    assert "tests/unit/lslogin/test_entitlements.py" not in found
    found = broken("cytomine_spawner/lslogin/entitlements.py").rings["unit"].files
    assert "tests/unit/lslogin/test_entitlements.py" in found
    assert "tests/unit/blueprint/test_render.py" not in found


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        (
            "helm/cytomine-hub/templates/hub/deployment.yaml",
            "unit/helm/test_chart unit/jupyterhub/test_hub_config api/test_chart_api",
        ),
        (
            "hub_config/parts/database.py",
            "unit/jupyterhub/test_hub_config unit/jupyterhub/test_hub_config_stacks",
        ),
        ("hub_config/check_release.py", "api/test_chart_api"),
        (
            "notebooks/04_nuclei.ipynb",
            "unit/notebook/test_notebooks cluster/test_notebooks browser/test_annotate_journey",
        ),
        ("cytomine_spawner/app.py", "api/test_operator"),
        ("cytomine_spawner/blueprint/manifests/core.yaml", "unit/blueprint/test_render api/test_manifests"),
        ("cytomine_spawner/web/templates/card.html", "unit/web/test_stacks_pages"),
        ("cytomine_spawner/templates/options_form.html", "unit/hub/test_options_form"),
        (
            "cytomine_spawner/notebook/transport.py",
            "cluster/test_stacks cluster/test_notebooks unit/notebook/test_safe",
        ),
        (
            "cytomine_spawner/notebook/lab/labextension/static/remoteEntry.js",
            "unit/notebook/test_lab browser/test_lab_card",
        ),
        ("dev/standin/core.py", "unit/dev/test_standin_client unit/notebook/test_upload"),
        ("dev/lslogin/store.js", "unit/dev/test_dev_lslogin"),
        ("dev/oauth2proxy/go.mod", "unit/blueprint/test_gateway_login"),
        ("images/hub/requirements.txt", "unit/dev/test_images"),
        ("docs/users/notebooks.md", "unit/notebook/test_notebooks cluster/test_notebooks"),
        ("dev/standin/README.md", "unit/dev/test_standin_contract"),
        ("tests/support/hub_config.py", "unit/jupyterhub/test_hub_rest browser/test_options_form"),
    ],
)
def test_what_no_import_shows_reaches_its_tests(
    broken: Callable[[str], Chosen], file: str, tests: str
) -> None:
    assert (ROOT / file).exists()
    found = broken(file)
    paths = {str(path) for ring in choose.RINGS[1:] for path in found.paths(ring)}
    for test in tests.split():
        assert {f"tests/{test}.py", f"tests/{test.split('/')[0]}"} & paths, test


@pytest.mark.parametrize("ring", choose.PODS)
@pytest.mark.parametrize(
    "file",
    [
        "cytomine_spawner/cluster/hubsecret.py",
        "cytomine_spawner/web/static/stacks.css",
        "dev/cluster/node.py",
        "dev/postgis/entrypoint.sh",
        "helm/cytomine-hub/values.yaml",
        "hub_config/parts/hub.py",
        "images/stacks/Containerfile",
    ],
)
def test_what_runs_in_pods_runs_the_rings_with_pods(
    broken: Callable[[str], Chosen], file: str, ring: str
) -> None:
    assert (ROOT / file).exists()
    assert broken(file).rings[ring].whole


def test_each_folder_at_the_top_has_a_rule(files: list[str]) -> None:
    tops = {file.split("/")[0] for file in files if "/" in file}
    assert {top for top in tops if choose.rule_of(f"{top}/some.thing") is None} == set()


def test_each_file_has_a_rule_and_the_rules_of_imports_find_a_test(
    files: list[str], broken: Callable[[str], Chosen]
) -> None:
    unknown = "no rule in dev/rings/choose.py", "no test is seen to use it"
    bad = {}
    for file in files:
        why = broken(file).rings["lint"].whole
        if any(words in why for words in unknown):
            bad[file] = why
    assert bad == {}


def test_each_rule_fits_a_file_and_names_tests_that_exist(files: list[str]) -> None:
    fitting = {rule for file in files if (rule := choose.rule_of(file))}
    assert [rule.files for rule in choose.RULES if rule not in fitting] == []
    assert {test for rule in choose.RULES for test in rule.tests} <= set(files)
    assert {part.rstrip("/") for file, used in choose.HIDDEN.items() for part in (file, *used)} <= {
        *files,
        *(str(folder) for file in files for folder in Path(file).parents),
    }


def test_a_rule_is_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Rule(("a/b/*",), "is first"), Rule(("a/*",), "is second")
    monkeypatch.setattr(choose, "RULES", (first, second))
    assert [choose.rule_of(file) for file in ("a/b/c/d", "a/c", "b/a/c")] == [first, second, None]


# Tests by name.

NAMES = {
    "tests/unit/test_render.py": "import pytest\n@pytest.mark.parametrize('x', ['Large'])\ndef test_sizes(x): pass\n",
    "tests/unit/test_hub.py": "class TestLogin:\n    async def test_twice(self): pass\ndef helper_of_render(): pass\n",
    "tests/api/test_chart.py": "import pytest\n@pytest.mark.online\ndef test_names(): pass\n",
    "tests/cluster/deep/test_x.py": "def broken(:\n",
}


@pytest.fixture
def named_tree(tmp_path: Path) -> Path:
    for file, text in NAMES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "paths"),
    [
        ("sizes", "unit/test_render.py"),
        ("SIZES and not twice", "unit/test_render.py"),
        ("large", "unit/test_render.py"),
        ("render", "unit/test_render.py"),
        ("login or names", "api/test_chart.py unit/test_hub.py"),
        ("twice and not (sizes or large)", "unit/test_hub.py"),
        ("not (not sizes)", "unit/test_render.py"),
        ("online", "api/test_chart.py"),
        ("deep", "cluster/deep/test_x.py"),
        ("not sizes", "api cluster unit"),
        ("unseen", "api cluster unit"),
        ("sizes or unseen", "api cluster unit"),
        ("tests/unit/test_hub.py", "unit/test_hub.py"),
        ("tests/unit/test_hub.py::TestLogin::test_twice[a::b]", "unit/test_hub.py"),
        ("tests/unit", "unit"),
        ("./tests/unit/", "unit"),
    ],
)
def test_a_name_leads_to_the_files_that_can_hold_it(named_tree: Path, word: str, paths: str) -> None:
    found = choose.named([word], root=named_tree)
    assert sorted(str(path) for path in found) == [f"tests/{path}" for path in paths.split()]


def test_only_the_rings_that_are_asked_for_are_searched(named_tree: Path) -> None:
    assert choose.named(["sizes"], ["api"], named_tree) == [Path("tests/api")]


def test_several_names_lead_to_all_their_files_once_and_each_ring_gets_its_own(named_tree: Path) -> None:
    found = choose.named(["sizes", "tests/api/test_chart.py::test_names", "render"], root=named_tree)
    assert choose.by_ring(found) == {
        "unit": [Path("tests/unit/test_render.py")],
        "api": [Path("tests/api/test_chart.py")],
    }
    assert choose.by_ring([Path("tests")]) == {ring: [Path("tests", ring)] for ring in choose.RINGS[1:]}


def test_a_path_that_leads_to_nothing_and_one_of_no_ring_are_said(named_tree: Path) -> None:
    with pytest.raises(Problem, match=r"There is no tests/unit/test_y\.py"):
        choose.named(["tests/unit/test_y.py::test_a"], root=named_tree)
    with pytest.raises(Problem, match=r"dev/cache\.py belongs to no ring"):
        choose.by_ring([Path("dev/cache.py")])


def test_a_test_of_this_checkout_is_found_by_its_name() -> None:
    assert choose.named(["test_a_test_of_this_checkout_is_found_by_its"]) == [
        Path("tests/unit/dev/test_dev_choose.py")
    ]


def test_what_looks_at_the_whole_checkout_runs_by_any_change_but_of_text(
    broken: Callable[[str], Chosen],
) -> None:
    assert choose.LOOKS_AT_ALL in broken("helm/cytomine-hub/values.yaml").rings["unit"].files
    assert not broken("CHANGELOG.md").rings["unit"]


def test_all_test_files_are_seen_as_such(files: list[str]) -> None:
    rings = {file.split("/")[1] for file in files if is_test(file)}
    assert rings == set(choose.RINGS[1:])
