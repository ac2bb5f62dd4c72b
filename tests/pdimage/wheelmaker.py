"""Writes tiny wheels for tests, without a build tool, and tells what is in a tree."""

import base64
import hashlib
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path


def make_wheel(
    directory: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", *,
    files: Mapping[str, str] | None = None, metadata: str = "", entry_points: str = "",
) -> Path:
    """Write a wheel into DIRECTORY and return it; FILES go in beside a module of the package's name."""
    info = f"{name}-{version}.dist-info"
    contents = {f"{name}.py": f"def main():\n    print('{name} {version}')\n", **(files or {})}
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}"
    contents[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    if entry_points:
        contents[f"{info}/entry_points.txt"] = f"[console_scripts]\n{entry_points}\n"
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    directory.mkdir(parents=True, exist_ok=True)
    wheel = directory / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in contents.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return wheel


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def snapshot(tree: Path) -> dict[str, tuple[int, str]]:
    """Return mode and content of all that is in TREE."""
    found = {}
    for directory, directories, files in os.walk(tree):
        for name in [*directories, *files]:
            path = Path(directory, name)
            mode = path.lstat().st_mode
            content = os.readlink(path) if path.is_symlink() else path.read_bytes().hex() if path.is_file() else ""
            found[str(path.relative_to(tree))] = (stat.S_IMODE(mode), content)
    return found
