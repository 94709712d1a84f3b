import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "lightning", "pytorch_lightning", "torchvision")

REPORT_LOADED = f"""
import json, sys
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
RUN_COMMAND = """
from solov2.cli import main
try:
    code = main({arguments!r})
except SystemExit as stop:
    code = stop.code
assert not code, f"exit code {{code}}"
"""


def heavy_modules_after(code: str) -> list[str]:
    """Run `code` in a fresh interpreter; which of HEAVY it has loaded at the end."""
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT_LOADED], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def test_the_probe_sees_torch() -> None:
    assert heavy_modules_after("import torch") == ["torch"]


def test_import_solov2_stays_light() -> None:
    assert heavy_modules_after("import solov2") == []


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_command_line_stays_light(argument: str) -> None:
    assert heavy_modules_after(RUN_COMMAND.format(arguments=[argument])) == []


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_import_contract() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* kept, 0 broken", done.stdout)


@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        ("errors.py", "\nimport solov2.structures\n", "solov2.errors is not allowed to import solov2.structures"),
        ("newcomer.py", "", "solov2.newcomer"),  # a module without a line of its own
    ],
)
def test_import_contract_can_break(tmp_path: Path, module: str, code: str, message: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    with (tmp_path / "src" / "solov2" / module).open("a") as file:
        file.write(code)
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert message in " ".join(done.stdout.split())
