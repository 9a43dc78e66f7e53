"""Which file of the tree uses which: by imports, and by the names of modules, files and folders in strings.

Nothing is imported or run. Where it cannot be known, a use is assumed: one too many costs seconds, one too few hides a
fault. Two places are looked at more closely, as each would make everything use everything:

- A package that imports on demand (a ``__getattr__`` at its top) uses nothing by that; who takes a name from it does.
- A conftest.py is taken apart. A test file uses what its hooks, its automatic fixtures and the fixtures that the file
  asks for need. What other fixtures import is imported with it, too, but only a failure to import it could reach the
  test file, and that fails in the files that ask for those fixtures just as well.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

# Words of a string that may name a file (with a slash), a module or something in it.
_TOKEN = re.compile(r"[\w.-]+(?:/[\w.-]+)+|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?::\w+)?")
# A program in a string, which a test gives to ``python -c`` or to a notebook's pod.
_FROM = re.compile(r"\bfrom\s+([A-Za-z_][\w.]*)\s+import\s+(?:\(([^)]*)\)|([\w ,*]*))")
_IMPORT = re.compile(r"(?:^|[\n;'\"])\s*import\s+([A-Za-z_][\w., ]*)")
# Their arguments are words that are joined to a path.
_JOINS = {"joinpath", "PackageLoader", "FileSystemLoader"}
_ASKS = {"usefixtures", "getfixturevalue"}
_ANY = "*"


@dataclass
class Part:
    """What one statement at the top of a module has.

    Attributes:
        binds: names that it gives the module.
        imports: level, module, and the names taken from it; without names the module itself.
        texts: strings.
        words: what is joined to a path that begins at the file or at a constant.
        names: names that it uses.
        asks: fixtures that its tests and fixtures ask for; ``*`` if that is not known.
        code: a function or class, which does nothing until somebody uses it.
        always: a hook or an automatic fixture, which somebody always uses.
        typing: only for the type checker.
        siblings: whether it imports modules of its own package by computed names.
    """

    binds: set[str] = field(default_factory=set)
    imports: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    asks: set[str] = field(default_factory=set)
    code: bool = False
    always: bool = False
    typing: bool = False
    siblings: bool = False


def parse(path: Path) -> list[ast.stmt]:
    """The statements of a file; none where it is not Python (yet): whoever runs it will say so."""
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        return ast.parse(path.read_bytes()).body
    return []


# Fields of a syntax tree's nodes that hold no other nodes, or none that matter here.
_PLAIN = {
    "ctx",
    "op",
    "ops",
    "id",
    "attr",
    "arg",
    "name",
    "asname",
    "level",
    "module",
    "type_comment",
    "kind",
}
_fields: dict[type, tuple[str, ...]] = {ast.Constant: ()}


def below(node: ast.AST) -> list[ast.AST]:
    """The nodes that a node consists of; ``ast.iter_child_nodes`` takes three times as long."""
    kind = type(node)
    if kind not in _fields:
        _fields[kind] = tuple(name for name in kind._fields if name not in _PLAIN)
    found: list[ast.AST] = []
    for name in _fields[kind]:
        value = getattr(node, name, None)
        if type(value) is list:
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def nodes(top: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it."""
    stack = [top]
    while stack:
        node = stack.pop()
        yield node
        stack += below(node)


def _called(node: ast.expr) -> str:
    """The last word of what is called: ``fixture`` of ``@pytest.fixture(...)``."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _string(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _anchored(node: ast.AST) -> bool:
    """Whether a path begins at the file or at a constant, which may be the checkout's folder."""
    for inner in nodes(node):
        name = inner.id if isinstance(inner, ast.Name) else getattr(inner, "attr", "")
        if name == "__file__" or (name.isupper() and len(name) > 1):
            return True
    return False


def part(statement: ast.stmt) -> Part:
    """Read one statement."""
    found = Part()
    if isinstance(statement, _CODE):
        found.code = True
        found.always = statement.name.startswith("pytest_") or any(
            keyword.arg == "autouse"
            for d in statement.decorator_list
            for keyword in getattr(d, "keywords", ())
        )
    elif isinstance(statement, ast.If):
        found.typing = any(
            getattr(n, "id", getattr(n, "attr", "")) == "TYPE_CHECKING" for n in nodes(statement.test)
        )
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Name):
            (found.names if isinstance(node.ctx, ast.Load) else found.binds).add(node.id)
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                found.texts.append(node.value)
        elif type(node) not in _LOOKED_AT or not _look(found, node, stack):
            stack += below(node)
    if isinstance(statement, _CODE):
        found.binds = {statement.name}  # what it binds inside is its own
    for text in found.texts:
        if "import" in text:
            found.imports += _program(text)
    return found


_CODE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LOOKED_AT = {
    ast.Expr, ast.Import, ast.ImportFrom, ast.BinOp, ast.Call, ast.FunctionDef, ast.AsyncFunctionDef,
}  # fmt: skip


def _look(found: Part, node: ast.AST, stack: list[ast.AST]) -> bool:
    """Look at one node closely.

    Args:
        found: gets what it has.
        node: a node of a kind that is looked at.
        stack: gets what is still to be read, if not all below the node is.

    Returns:
        whether that was all, so that what is below the node need not be read.
    """
    if isinstance(node, ast.Expr):
        return bool(_string(node.value))  # a docstring uses nothing
    if isinstance(node, ast.Import):
        for alias in node.names:
            found.imports.append((0, alias.name, ()))
            found.binds.add(alias.asname or alias.name.partition(".")[0])
    elif isinstance(node, ast.ImportFrom):
        found.imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        found.binds |= {alias.asname or alias.name for alias in node.names}
    elif isinstance(node, ast.BinOp):
        words: list[str] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Div) and _string(left.right):
            words.append(_string(left.right))
            left = left.left
        if words:
            (found.words if _anchored(left) else found.texts).append("/".join(reversed(words)))
            stack.append(left)
            return True
    elif isinstance(node, ast.Call):
        called = _called(node.func)
        if called in _JOINS:
            found.words += [word for argument in node.args if (word := _string(argument).strip("/"))]
        elif called in _ASKS:
            found.asks |= {_string(argument) or _ANY for argument in node.args}
        elif called in ("import_module", "__import__"):
            found.siblings |= any(getattr(n, "id", "") in ("__package__", "__name__") for n in nodes(node))
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
        node.name.startswith("test") or any(_called(d) == "fixture" for d in node.decorator_list)
    ):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        found.asks |= {argument.arg for argument in every}
    return False


def _program(text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """The imports of a program in a string."""
    for module, several, few in _FROM.findall(text):
        names = [name.split()[0] for name in (several or few).split(",") if name.split()]
        yield 0, module, tuple(names) or (_ANY,)
    for modules in _IMPORT.findall(text):
        for module in modules.split(","):
            if words := module.split():
                yield 0, words[0], ()


def _notebook(path: Path) -> Part:
    """What the code of a notebook imports."""
    found = Part()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        for cell in json.loads(path.read_bytes()).get("cells", []):
            if cell.get("cell_type") == "code":
                found.imports += _program("".join(cell.get("source", "")))
    return found


def folder_of(file: str) -> str:
    """The folder of a file, empty at the top."""
    return file.rpartition("/")[0]


def above(file: str) -> list[str]:
    """The folders above a file, the nearest first and the top, which is empty, last."""
    found = [folder_of(file)]
    while found[-1]:
        found.append(folder_of(found[-1]))
    return found


def is_test(file: str) -> bool:
    """Whether a ring has tests in a file; those with Cytomine's own images are a command of their own."""
    if file.startswith("tests/real/"):
        return False
    return file.startswith("tests/") and file.endswith(".py") and file.rpartition("/")[2].startswith("test_")


def is_conftest(file: str) -> bool:
    """Whether a file has fixtures for its folder."""
    return file.rpartition("/")[2] == "conftest.py"


def is_data(file: str) -> bool:
    """Whether a file is for programs, yet no module. Those of a folder belong together: who names one, uses all."""
    return not file.endswith((".py", ".md"))


@dataclass
class _OnDemand:
    """What a package with a ``__getattr__`` imports when somebody takes a name from it."""

    by_name: dict[str, set[str]]
    every: set[str]
    at_once: set[str]


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: among so many new objects each look takes long and finds none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _parts(root: Path, files: Iterable[str]) -> dict[str, list[Part]]:
    """What the modules and notebooks among the files consist of."""
    found: dict[str, list[Part]] = {}
    for file in files:
        if file.endswith(".py"):
            found[file] = [part(statement) for statement in parse(root / file)]
        elif file.endswith(".ipynb"):
            found[file] = [_notebook(root / file)]
    return found


def _is_lazy(each: Part) -> bool:
    """Whether a package's part counts only when somebody takes a name from the package."""
    return each.typing or (each.code and "__getattr__" in each.binds)


class Uses:
    """The uses among the files of a tree.

    Args:
        root: the checkout.
        files: its files, from its top and with slashes. What is deleted may be among them: who still uses it is found.
        hidden: uses that nothing shows: for a file what it uses, a folder with a slash at its end.
        lists: modules whose strings name files only to speak of them.

    Attributes:
        of: for each file what it uses, and how: ``imports`` or ``names``. A folder stands there with a slash at its end
            for all that is in it, and with ``/*`` for its own files that are no modules. ``conftest.py#name`` is a part
            of a conftest.py.
    """

    def __init__(
        self,
        root: Path,
        files: Iterable[str],
        hidden: Mapping[str, Iterable[str]] = MappingProxyType({}),
        lists: Iterable[str] = (),
    ) -> None:
        self.files = set(files)
        self.of: dict[str, dict[str, str]] = {}
        self._folders = {folder for file in self.files for folder in above(file) if folder}
        self._with_tests = {f for file in self.files if is_test(file) for f in above(file)}
        with _without_collection():
            self._parts = _parts(root, sorted(self.files))
            for file in self._parts.keys() & set(lists):
                for each in self._parts[file]:
                    each.texts, each.words = [], []
            self._modules: dict[str, list[str]] = {}
            for file in self._parts:
                if file.endswith(".py"):
                    dotted = file[:-3].removesuffix("/__init__").replace("/", ".")
                    self._modules.setdefault(dotted, []).append(file)
            self._top = {dotted.partition(".")[0] for dotted in self._modules}
            self._on_demand: dict[str, _OnDemand] = {}
            for file in self._parts:
                if file.endswith("__init__.py"):
                    self._find_on_demand(file)
            for file, parts in self._parts.items():
                if is_conftest(file):
                    self._take_apart(file, parts)
                else:
                    found = self.of.setdefault(file, self._packages(file))
                    for each in parts:
                        if file not in self._on_demand or not _is_lazy(each):
                            self._add(found, file, each)
            for file in self.files & hidden.keys():
                self.of.setdefault(file, {}).update(dict.fromkeys(hidden[file], "names"))
            self._fixtures()

    def _packages(self, file: str) -> dict[str, str]:
        """The packages that a module is in, which run before it."""
        every = (f"{folder}/__init__.py" for folder in above(file) if folder)
        return {init: "imports" for init in every if init in self.files and init != file}

    def _find_on_demand(self, file: str) -> None:
        parts = self._parts[file]
        if not any(each.code and "__getattr__" in each.binds for each in parts):
            return
        by_name: dict[str, set[str]] = {}
        every: set[str] = set()
        for each in filter(_is_lazy, parts):
            if each.siblings:
                every |= self._siblings(file)
            for level, module, names in each.imports:
                for name in names:
                    targets = set(self._import(file, level, module, (name,)))
                    by_name.setdefault(name, set()).update(targets)
                    every |= targets
                if not names:
                    every |= set(self._import(file, level, module, ()))
        at_once = {name for each in parts if not _is_lazy(each) for name in each.binds}
        self._on_demand[file] = _OnDemand(by_name, every - {file}, at_once)

    def _siblings(self, file: str) -> set[str]:
        folder = folder_of(file)
        return {other for other in self._parts if folder_of(other) == folder and other.endswith(".py")}

    def _import(self, file: str, level: int, module: str, names: tuple[str, ...]) -> Iterator[str]:
        """The files that an import runs."""
        places = [""]
        folder = folder_of(file)
        if level:
            here = folder.split("/") if folder else []
            places = [".".join(here[: len(here) - level + 1])]
        else:
            # A program finds what is beside it, or beside the package that it is part of.
            while folder and f"{folder}/__init__.py" in self.files:
                folder = folder_of(folder)
            if folder:
                places.append(folder.replace("/", "."))
        for place in places:
            words = [*(place.split(".") if place else []), *(module.split(".") if module else [])]
            if not level and ".".join(words[: len(place.split(".")) + 1 if place else 1]) not in self._known:
                continue
            for end in range(1, len(words) + 1):
                yield from self._modules.get(".".join(words[:end]), ())
            whole = ".".join(words)
            if not names:
                # The name that is bound is a package, from which anything may be taken later.
                for end in range(1, len(words) + 1):
                    yield from self._taken(".".join(words[:end]), _ANY)
            for name in names:
                inner = self._modules.get(f"{whole}.{name}", ())
                yield from inner
                if inner:
                    yield from self._taken(f"{whole}.{name}", _ANY)
                else:
                    yield from self._taken(whole, name)

    @cached_property
    def _known(self) -> set[str]:
        """Modules and folders with modules, as dotted names."""
        every = (dotted.split(".") for dotted in self._modules)
        return {".".join(words[:end]) for words in every for end in range(1, len(words) + 1)}

    def _taken(self, package: str, name: str) -> Iterator[str]:
        """What a package imports when a name is taken from it."""
        for file in self._modules.get(package, ()):
            if demand := self._on_demand.get(file):
                if name in demand.by_name:
                    yield from demand.by_name[name]
                elif name not in demand.at_once:
                    yield from demand.every

    def _add(self, found: dict[str, str], file: str, each: Part) -> None:
        """Add what a part uses."""
        for level, module, names in each.imports:
            for target in self._import(file, level, module, names):
                found.setdefault(target, "imports")
        if each.siblings:
            found.update(dict.fromkeys(self._siblings(file), "imports"))
        for text in each.texts:
            for target in self._named(file, text):
                found.setdefault(target, "names")
        for word in each.words:
            for target in self._joined(file, word):
                found.setdefault(target, "names")
        found.pop(file, None)

    def _named(self, file: str, text: str) -> Iterator[str]:
        """The files that a string names: as a whole, or in the middle of a program or a sentence."""
        if "." not in text and "/" not in text:
            return
        if not re.search(r"\s", text):
            yield from self._paths(file, text)
        if "import" in text:
            # Their modules are known already, and better: what is taken from them, too.
            text = _IMPORT.sub("", _FROM.sub("", text))
        for token in _TOKEN.findall(text):
            if "/" in token:
                # A sentence may send the reader to ./test or to a page of the documentation.
                if not token.startswith("./") and not token.endswith(".md"):
                    yield from self._paths(file, token)
                continue
            dotted, _, name = token.partition(":")
            words = dotted.split(".")
            if words[0] not in self._top:
                continue
            end = next((n for n in range(len(words), 0, -1) if ".".join(words[:n]) in self._modules), 0)
            module = ".".join(words[:end])
            taken = [*words[end:], name, _ANY][0] or _ANY
            for n in range(1, end + 1):
                if end > 1 or taken != _ANY:
                    yield from self._modules.get(".".join(words[:n]), ())
            yield from self._modules.get(f"{module}.__main__", ())
            yield from self._taken(module, taken)

    def _paths(self, file: str, text: str) -> Iterator[str]:
        """The files and folders that a path may mean, from the file's folder or one above."""
        path = posixpath.normpath(text.strip("/"))
        if path.startswith(("..", "./")) or path == "." or not ("/" in text or "." in text):
            return
        for found in self._joined(file, path):
            # The name of a package's folder is a word of an address, too: /stacks/.
            if f"{found}__init__.py" not in self.files:
                yield found

    def _joined(self, file: str, text: str) -> Iterator[str]:
        """The same for what is surely joined to a path, so that it may be one word."""
        ancestors = above(file)
        for folder in ancestors:
            path = posixpath.normpath(f"{folder}/{text}" if folder else text)
            if path in self.files:
                # A test file that is only named, as in a conftest.py that sorts them, is not used.
                if not (is_test(path) or is_conftest(path)):
                    yield path
                if is_data(path) and folder_of(path):
                    yield f"{folder_of(path)}/*"
            elif path in self._folders and path not in self._with_tests and path not in ancestors:
                yield f"{path}/"

    def _take_apart(self, file: str, parts: list[Part]) -> None:
        """Nodes for the parts of a conftest.py: one for each name, and the file for what always counts."""
        base = self.of.setdefault(file, self._packages(file))
        owner = {name for each in parts for name in each.binds}
        for each in parts:
            needs: dict[str, str] = {}
            self._add(needs, file, each)
            needs.update(
                {
                    f"{file}#{name}": "imports"
                    for name in (each.names | each.asks) & owner
                    if name not in each.binds
                }
            )
            if each.always or not each.binds or not (each.code or each.imports):
                base.update(needs)
            for name in each.binds:
                self.of.setdefault(f"{file}#{name}", {file: "imports"}).update(needs)

    def _fixtures(self) -> None:
        """Let test files use the conftest.py of the folders above, and the fixtures that they ask for."""
        conftests = {
            file: {name for each in parts for name in each.binds}
            for file, parts in self._parts.items()
            if is_conftest(file)
        }
        for file in self._parts:
            # Who imports a conftest.py as a module gets all of it.
            for conftest in conftests.keys() & self.of[file].keys():
                self.of[file].update({f"{conftest}#{name}": "imports" for name in conftests[conftest]})
        for file, parts in self._parts.items():
            if is_test(file):
                for conftest in conftests:
                    if folder_of(conftest) in above(file):
                        self.of[file][conftest] = "imports"
                for asked in self._asked(file):
                    self.of[file].update(self._provider(conftests, folder_of(file), asked))
            elif is_conftest(file):
                # A fixture that asks for another of its own name means that of a folder above, as pytest sees it.
                for each in parts:
                    for asked in each.asks:
                        if asked not in conftests[file] or asked in each.binds:
                            found = self._provider(conftests, folder_of(folder_of(file)), asked)
                            for name in each.binds if folder_of(file) else ():
                                self.of[f"{file}#{name}"].update(found)
                            if each.always:
                                self.of[file].update(found)
        # What nobody is seen to ask for may be asked for in a way that is not seen.
        used = {target for targets in self.of.values() for target in targets}
        for node in [n for n in self.of if "#" in n and n not in used]:
            self.of[node.partition("#")[0]][node] = "imports"

    def _asked(self, test: str) -> set[str]:
        """The fixtures that a test file asks for, itself or by fixtures that it imports, and has not got itself."""
        seen, queue = {test}, [test]
        asked: set[str] = set()
        while queue:
            file = queue.pop()
            own = {name for each in self._parts[file] for name in each.binds}
            for each in self._parts[file]:
                asked |= {name for name in each.asks if name not in own or name in each.binds}
            for other in self.of[file]:
                if other.startswith("tests/") and other in self._parts and not is_conftest(other):
                    queue += [other] if other not in seen else []
                    seen.add(other)
        return asked

    def _provider(self, conftests: dict[str, set[str]], folder: str, asked: str) -> dict[str, str]:
        """The part of a conftest.py that provides a fixture to a folder; all parts where the name is not known."""
        found: dict[str, str] = {}
        for place in above(f"{folder}/x" if folder else "x"):
            conftest = f"{place}/conftest.py" if place else "conftest.py"
            if conftest not in conftests:
                continue
            if asked == _ANY:
                found.update({f"{conftest}#{name}": "imports" for name in conftests[conftest]})
            elif asked in conftests[conftest]:
                return {f"{conftest}#{asked}": "imports"}
        return found

    @cached_property
    def _used_by(self) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for node, targets in self.of.items():
            for target, how in targets.items():
                found.setdefault(target, []).append((node, how))
        return found

    def users(self, changed: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
        """Who uses the changed files, itself or by others.

        Returns:
            for each user the shortest way to a changed file, as pairs of how and what; of a changed file it is empty.
        """
        ways: dict[str, list[tuple[str, str]]] = {}
        queue: list[str] = []
        for file in changed:
            ways[file] = []
            queue.append(file)
        for node in queue:  # grows meanwhile
            here = [node]
            if "#" not in node:
                here += [f"{folder}/" for folder in above(node) if folder]
                here += [f"{folder_of(node)}/*"] if is_data(node) else []
                if is_conftest(node) and not ways[node]:
                    here += [other for other in self.of if other.startswith(f"{node}#")]
            for target in here:
                for user, how in self._used_by.get(target, ()):
                    if user not in ways:
                        ways[user] = [(how, node), *ways[node]]
                        queue.append(user)
        return ways
