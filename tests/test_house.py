"""The rules of the house: who may import whom, who may print and exit, and what linters and types say."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Lower layers first: a module imports its own layer and those before it.
LAYERS = ["fussy", "paradrop", "pdimage", "pdimage.lab"]


def library_files() -> Iterator[tuple[str, Path]]:
    """Yield (dotted module name, file) of everything that ships."""
    for path in sorted(ROOT.glob("fussy/**/*.py")) + sorted(ROOT.glob("pdimage/**/*.py")):
        relative = path.relative_to(ROOT)
        if relative.is_relative_to("pdimage/chutes") or relative.is_relative_to("pdimage/release"):
            continue  # programs that run inside containers and releases, not our library
        parts = relative.with_suffix("").parts
        if relative.is_relative_to("pdimage/paradrop"):
            parts = parts[1:]
        yield ".".join(parts).removesuffix(".__init__"), path


def layer(module: str) -> int | None:
    """Return the index in LAYERS of a dotted module name, or None for a module from elsewhere."""
    found = [i for i, name in enumerate(LAYERS) if module == name or module.startswith(name + ".")]
    return max(found, default=None)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def test_dependencies_point_one_way() -> None:
    wrong = []
    for module, path in library_files():
        own = layer(module)
        assert own is not None
        for line, imported in imports(path):
            other = layer(imported)
            if other is not None and other > own:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {module} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_libraries_neither_print_nor_exit() -> None:
    forks = {"fussy/updating/apart.py"}  # the child of a fork can't end in another way
    wrong = []
    for _, path in library_files():
        if path.name == "cli.py" or path.parent.name == "cli" or str(path.relative_to(ROOT)) in forks:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.exit", "exit", "os._exit"}:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}")
    assert not wrong, "\n".join(wrong)


def test_every_package_ships() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    there = {module for module, path in library_files() if path.name == "__init__.py"}
    assert listed == there


def test_no_module_is_too_long_to_read() -> None:
    long = [f"{path.relative_to(ROOT)}: {lines}" for _, path in library_files()
            if (lines := len(path.read_text().splitlines())) > 450]
    assert not long, "\n".join(long)


def run(*argv: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    run("ruff", "check", ".")


# The runtime is imported as `paradrop`, not by where it lies, so pdimage/ is the root of its own run.
@pytest.mark.slow
@pytest.mark.parametrize(("root", "what"), [
    (".", ["-p", "fussy"]),
    ("pdimage", ["-p", "paradrop"]),
    (". pdimage", ["--exclude", "pdimage/(paradrop|chutes)/", "pdimage"]),
], ids=["fussy", "paradrop", "pdimage"])
def test_strict_types(root: str, what: list[str]) -> None:
    path = ":".join(str(ROOT / part) for part in root.split())
    run("mypy", "--config-file", "setup.cfg", *what, env={"MYPYPATH": path, "PATH": "/usr/bin:/bin"})
