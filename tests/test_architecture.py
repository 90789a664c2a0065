"""The code keeps to its own map: names in ARCHITECTURE.md exist, sizes stay readable, SQL stays in the store."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_SOURCE = _ROOT / "src" / "postbackd"
_PAGE = _ROOT / "ARCHITECTURE.md"
_FILES = sorted(_SOURCE.rglob("*.py"))
_CLIENT = sorted((_ROOT / "clients/python/src").rglob("*.py"))
_OURS = sys.stdlib_module_names | {"postbackd_client"}
_LONGEST_FUNCTION = 60
_LONGEST_FILE = 450


def name_of(path: Path) -> str:
    return str(path.relative_to(_SOURCE if path.is_relative_to(_SOURCE) else _ROOT))


def page() -> str:
    if not _PAGE.exists():
        pytest.skip("there is no ARCHITECTURE.md yet")
    return _PAGE.read_text("utf-8")


# --- names on the page --------------------------------------------------------------------------------------


def test_every_path_on_the_architecture_page_exists() -> None:
    paths = {
        path.rstrip("/") for path in re.findall(r"`((?:src|tests|docs|spec|bench|deploy)\b[\w/.-]*)`", page())
    }
    paths |= set(re.findall(r"\]\((?!https?:)([^)#]+)\)", page()))
    assert paths
    assert [path for path in sorted(paths) if not (_ROOT / path).exists()] == []


def modules() -> set[str]:
    names = {str(path.relative_to(_SOURCE).with_suffix("")).replace("/", ".") for path in _FILES}
    return names | {name.removesuffix(".__init__") for name in names}


def test_every_module_and_name_on_the_architecture_page_exists() -> None:
    known = modules()
    packages = {name.partition(".")[0] for name in known}
    named = re.findall(r"\b([a-z_]+(?:\.[A-Za-z_]+)+)\b", page())
    dotted = {
        name for name in named if name.partition(".")[0] in packages and not name.endswith((".py", ".md"))
    }
    assert dotted
    assert [name for name in sorted(dotted) if not is_known(name, known)] == []


def is_known(name: str, known: set[str]) -> bool:
    """A module, or a name that its module defines."""
    if name in known:
        return True
    module, _, rest = name.rpartition(".")
    if module in known:
        path = _SOURCE / (module.replace(".", "/") + ".py")
        return path.exists() and rest in definitions(path)
    outer, _, cls = module.rpartition(".")
    return outer in known and cls in definitions(_SOURCE / (outer.replace(".", "/") + ".py"))


def definitions(path: Path) -> set[str]:
    """Functions, classes and constants at the top of a module."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_module_that_the_page_lists_under_a_folder_is_there() -> None:
    for folder, words in re.findall(
        r"\| `src/postbackd/(\w+)` \| [^|]*?:((?: `\w+`(?: \([^)]*\))?,?)+)", page()
    ):
        listed = re.findall(r"`(\w+)`", words)
        there = {path.stem for path in (_SOURCE / folder).iterdir()}
        assert set(listed) <= there, folder


def test_every_package_stands_on_the_page() -> None:
    for package in sorted(path.parent.name for path in _SOURCE.glob("*/__init__.py")):
        assert f"src/postbackd/{package}" in page(), package


@pytest.fixture(scope="module")
def trees() -> Mapping[Path, ast.Module]:
    """Every module, parsed."""
    return {path: ast.parse(path.read_text("utf-8")) for path in _FILES + _CLIENT}


# --- sizes --------------------------------------------------------------------------------------------------


def test_no_file_is_too_long_to_be_read_at_once() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in _FILES + _CLIENT}
    assert {name: length for name, length in lengths.items() if length > _LONGEST_FILE} == {}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_function_is_too_long_to_be_read_at_once(trees: Mapping[Path, ast.Module]) -> None:
    lengths = {
        f"{name_of(path)}: {f.name}": (f.end_lineno or f.lineno) - f.lineno + 1
        for path, tree in trees.items()
        for f in functions(tree)
    }
    assert {name: length for name, length in lengths.items() if length > _LONGEST_FUNCTION} == {}


# --- what the client may use --------------------------------------------------------------------------------


def test_the_client_needs_nothing_but_python(trees: Mapping[Path, ast.Module]) -> None:
    foreign = set()
    for path in _CLIENT:
        if path.parent.name not in ("postbackd_client", "commands"):
            continue
        for node in ast.walk(trees[path]):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign |= {(name_of(path), name) for name in names if name.partition(".")[0] not in _OURS}
    assert foreign == set()


# --- where things belong ------------------------------------------------------------------------------------


_SQL = re.compile(
    r"\s*(?:SELECT\s.+\sFROM|INSERT\s+(?:OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(?:TABLE|INDEX)"
    r"|PRAGMA\s|WITH\s+\w+\s+AS\s*\()",
    re.IGNORECASE | re.DOTALL,
)


def texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_sql_is_written_in_the_store_only(trees: Mapping[Path, ast.Module]) -> None:
    found = [(path, text) for path in _FILES for text in texts(trees[path]) if _SQL.match(text)]
    assert [(name_of(path), text) for path, text in found if path.parent.name != "store"] == []
    assert len(found) > 30, "the search no longer finds it where it is"


def test_every_module_opens_with_what_it_is(trees: Mapping[Path, ast.Module]) -> None:
    assert [name_of(path) for path, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


def test_no_name_says_nothing() -> None:
    empty = {"utils", "util", "helper", "helpers", "manager", "common", "misc"}
    assert [name_of(path) for path in _FILES if path.stem in empty or path.parent.name in empty] == []


def test_money_meets_no_float() -> None:
    for name in ("money", "params", "terms"):
        tree = ast.parse((_SOURCE / "core" / f"{name}.py").read_text("utf-8"))
        floats = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, float)]
        casts = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "float"]
        assert (floats, casts) == ([], []), name
