"""docs/python.md: its programs run, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import solov2

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_its_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One after another, as a reader would, but for the training."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOLOV2_MODEL", raising=False)
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    values: dict[str, Any] = {"images": torch.zeros(1, 3, 480, 640)}
    for program in programs:
        if "solov2.train(" not in program:
            exec(program, values)
    assert len(programs) == 7
    assert len(values["found"]) > 2
    assert values["mask"].dtype == bool
    np.testing.assert_array_equal(values["mask"], values["found"].masks[0])
    assert "no_such.jpg: no such file; give the path of a picture" in capsys.readouterr().out
    assert (tmp_path / "solov2_result" / "street.png").is_file()
    assert values["output"]["segm"].ndim == 3
    assert isinstance(values["instances"], solov2.Instances)


@pytest.mark.parametrize("name", solov2.__all__)
def test_every_public_name_is_on_it(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


@pytest.mark.parametrize("name", [name for name in dir(solov2.Instances) if not name.startswith("_")])
def test_every_part_of_instances_is_on_it(name: str) -> None:
    assert re.search(rf"\b(found|Instances)\.{name}\b", PAGE)
