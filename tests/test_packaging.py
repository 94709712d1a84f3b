import fnmatch
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "solov2"
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
SETUPTOOLS_MAJOR = 77  # as in [build-system] of pyproject.toml

LOAD_EVERY_RECIPE = """
import sys
import solov2
from solov2.config import load_config, shipped_recipes
assert solov2.__file__.startswith(sys.argv[1]), solov2.__file__
print(len([load_config(name) for name in shipped_recipes()]))
"""

pytestmark = pytest.mark.slow


def has_build_backend() -> bool:
    """Whether this environment can build by itself; otherwise pip fetches the backend."""
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= SETUPTOOLS_MAJOR
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy: the checkout's own build/ and egg-info could hide a gap in the package data."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", source / "src", ignore=NOT_SOURCE)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy2(ROOT / name, source)
    isolation = ["--no-build-isolation"] if has_build_backend() else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        *isolation,
        "--wheel-dir",
        str(out),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.parametrize(
    "pattern",
    [
        "solov2/py.typed",
        "solov2/config/recipes/*.yml",
        "solov2/config/recipes/_base_/*.yml",
        "solov2/weights/shipped/*.safetensors",
        "solov2-*.dist-info/licenses/LICENSE",
        "solov2-*.dist-info/licenses/NOTICE",
    ],
)
def test_wheel_has(names: list[str], pattern: str) -> None:
    assert fnmatch.filter(names, pattern)


def test_wheel_has_every_file_of_the_package(names: list[str]) -> None:
    files = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    expected = {name for name in files if "__pycache__" not in name}
    assert expected - set(names) == set()


def test_wheel_has_nothing_else(names: list[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in names} == {"solov2"}


def test_wheel_names_its_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        assert "solov2 = solov2.cli:main" in archive.read(entry_points).decode()


def test_recipes_load_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_EVERY_RECIPE, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
