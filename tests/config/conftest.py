from collections.abc import Callable
from pathlib import Path

import pytest

from solov2.config import load_config
from solov2.errors import ConfigError

MINIMAL = "architecture: SOLOv2\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file below the test's folder and returns its path."""

    def _write(text: str = "", name: str = "recipe.yml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MINIMAL + text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def problems(write: Callable[..., Path]) -> Callable[..., list[str]]:
    """Loads a recipe that must be refused; returns the report's lines without the folder it lies in."""

    def _problems(text: str, *overrides: str) -> list[str]:
        path = write(text)
        with pytest.raises(ConfigError) as error:
            load_config(path, overrides)
        return str(error.value).replace(f"{path.parent}/", "").splitlines()

    return _problems
