"""What the import contracts cannot say by themselves."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ["auction", "affinity", "ledger", "bidder_api", "sim"]
OPEN_TO_THE_AUCTION = {"money", "terms", "beacon"}


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_every_module_of_the_ledger_but_three_is_closed_to_the_auction() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    closed = next(c["forbidden_modules"] for c in contracts if c.get("source_modules") == ["auction"])
    ledger = ROOT / "ledger"
    modules = {path.relative_to(ledger).parts[0].removesuffix(".py") for path in modules_of("ledger")}
    modules -= {"__init__"} | OPEN_TO_THE_AUCTION
    assert {name.removeprefix("ledger.") for name in closed} == modules


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_nothing_else(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize("package", PACKAGES)
def test_compiled_code_lives_in_the_one_kernel_of_its_package(package: str) -> None:
    compiled = [path.name for path in modules_of(package) if "from numba" in path.read_text()]
    assert set(compiled) <= {"kernel.py"}


@pytest.mark.parametrize("package", ["auction", "affinity", "ledger"])
def test_sql_stops_at_the_stores(package: str) -> None:
    """`sqlalchemy.engine.Connection` may travel as a type; statements are written in the store and the audit views."""
    for path in modules_of(package):
        if path.name not in ("store.py", "audit.py") and path.parent.name != "store":
            assert "import sqlalchemy" not in path.read_text(), path


SLOT_PATH = [
    "endpoint",
    "serving",
    "engine",
    "eligibility",
    "rules",
    "quality",
    "kernel",
    "market",
    "snapshot",
    "spend",
]


@pytest.mark.parametrize("module", SLOT_PATH)
def test_nothing_on_the_slot_path_imports_a_database(module: str) -> None:
    for node in ast.walk(ast.parse((ROOT / "auction" / f"{module}.py").read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not any(name.startswith("sqlalchemy") or name.endswith(".store") for name in names), module
