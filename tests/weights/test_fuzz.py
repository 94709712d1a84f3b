import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_weights.py"


def test_damaged_files_of_every_kind(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("fuzz_weights", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found, wrong = script.fuzz(203, 1, tmp_path)
    assert wrong == []
    assert found.total() == 203
    assert {outcome for _, outcome in found} == {"read", "refused"}
    assert len({name for name, _ in found}) == 7
    assert list(tmp_path.iterdir()) == []
