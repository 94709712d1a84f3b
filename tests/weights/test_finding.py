import os
from pathlib import Path

import pytest

from solov2.errors import WeightsError
from solov2.weights import finding
from solov2.weights.finding import (
    find_weights,
    is_known,
    model_names,
    shipped_names,
    why_no_folder,
    why_not_written,
)
from solov2.weights.zoo import ZOO


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def refused(name: str | Path, *, models_only: bool = False) -> str:
    with pytest.raises(WeightsError) as caught:
        find_weights(name, models_only=models_only)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_find_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    path.touch()
    assert find_weights(path) == path
    assert find_weights("model").resolve() == path  # without its suffix
    assert find_weights(str(tmp_path / "model")) == path
    assert find_weights("nanodet_plus_m") == finding.SHIPPED / "nanodet_plus_m.safetensors"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights("~/model.safetensors") == path


def test_paths_without_their_suffix(tmp_path: Path) -> None:
    # The last written is the first to be found.
    for suffix in (".pkl", ".pth", ".pdparams", ".ckpt", ".safetensors"):
        (tmp_path / f"model.v2{suffix}").touch()
        assert find_weights(tmp_path / "model.v2") == tmp_path / f"model.v2{suffix}"
    (tmp_path / "model.v2").touch()
    assert find_weights(tmp_path / "model.v2") == tmp_path / "model.v2"


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "~nobody_at_all/a"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(WeightsError, match=r"is neither a file nor the name|no such file"):
        find_weights(name)


def test_a_file_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nanodet_plus_m.safetensors").touch()
    assert find_weights("nanodet_plus_m").resolve() == tmp_path / "nanodet_plus_m.safetensors"


@pytest.mark.parametrize("name", ["nothing_like_it", ""])
def test_unknown_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as error:
        find_weights(name)
    assert str(error.value).startswith(f"{name!r} is neither a file nor the name of a model; ")
    for shipped in shipped_names():
        assert shipped in str(error.value)


def test_an_alias_leads_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finding, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "solov2_nano_nuclei.safetensors").touch()
    assert find_weights("nuclei") == find_weights("solov2_nano_nuclei")
    assert shipped_names() == ["nuclei", "solov2_nano_nuclei"]


# ------------------------------------------------------------------------------------- nothing is there


@pytest.mark.parametrize("name", ["a/b.ckpt", "a/b", "nuclei.safetensors", "./nuclei", "photo.pth"])
def test_what_looks_like_a_path_is_no_such_file(name: str) -> None:
    assert refused(name) == (
        f"{name}: no such file; expected a weights file (.safetensors, .ckpt, .pdparams, .pth, .pkl)"
    )


def test_the_same_name_with_another_suffix_is_offered(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model_final.safetensors").touch()
    assert refused("run/model_final.pdparams") == (
        "run/model_final.pdparams: no such file; did you mean run/model_final.safetensors?"
    )
    (tmp_path / "run" / "model_final.ckpt").touch()
    assert refused("run/model_final.pdparams").endswith(
        "did you mean run/model_final.safetensors or run/model_final.ckpt?"
    )


def test_a_folder_shows_its_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert refused("run") == (
        "run: is a folder without weights in it; expected a weights file (.safetensors, .ckpt, .pdparams, .pth, .pkl)"
    )
    for name in ("last.ckpt", "0.safetensors", "model_final.safetensors", "best_model.safetensors", "metrics.jsonl"):
        (run / name).touch()
    assert refused("run") == (
        "run: is a folder; give one of the weights files in it: best_model.safetensors, model_final.safetensors, "
        "0.safetensors, last.ckpt"
    )
    for number in range(9):
        (run / f"{number}.pth").touch()
    assert refused(f"{run}/").endswith("0.safetensors, 0.pth, 1.pth, …")


def test_a_folder_does_not_hide_a_name(tmp_path: Path) -> None:
    (tmp_path / "nuclei").mkdir()
    assert find_weights("nuclei").name == "solov2_nano_nuclei.safetensors"


def test_a_published_file_may_have_its_suffix(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(finding, "fetch", lambda url: asked.append(url) or Path("x"))
    find_weights("SOLOv2_R50_1x.pth")
    find_weights("SOLOv2_R50_1x")
    assert asked == [next(entry.url for entry in ZOO if entry.name == "solov2_r50_fpn_8gpu_1x")] * 2
    assert "is the name of 2 published files" in refused("SOLOv2_R50_3x.pth")


def test_backbones_are_no_models() -> None:
    assert "nanodet_plus_m" in refused("abacus")
    assert "nanodet_plus_m" not in refused("abacus", models_only=True)
    assert "did you mean nanodet_plus_m?" in refused("nanodet_plus_n")
    assert "nanodet_plus_m" not in refused("nanodet_plus_n", models_only=True)
    assert {"nuclei", *(entry.name for entry in ZOO)} == set(model_names())


def test_is_known(tmp_path: Path) -> None:
    (tmp_path / "own.pth").touch()
    for name in ("own", "own.pth", "nuclei", "nanodet_plus_m", "SOLOv2_R50_1x", "https://nowhere.invalid/x.pth"):
        assert is_known(name)
    for name in ("other.pth", "", "run/model_final"):
        assert not is_known(name)


# ----------------------------------------------------------------------------------- places to write to


def test_places_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "there.json").touch()
    for path in ("there.json", "new.json", "new/deep/new.json", str(tmp_path / "new.json")):
        assert why_not_written(Path(path)) == ""
    for folder in (".", "new", "new/deep", str(tmp_path)):
        assert why_no_folder(Path(folder)) == ""


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "three.txt"
    file.touch()
    for path in ("three.txt/a.json", "three.txt/deep/a.json"):
        assert why_not_written(Path(path)) == f"{file} is a file, not a folder"
    assert why_no_folder(Path("three.txt")) == "three.txt is a file, not a folder"
    assert why_not_written(tmp_path) == "it is a folder"
    assert why_not_written(tmp_path / ("a" * 5000)) != ""


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert why_not_written(closed / "deep" / "a.json") == f"{closed} may not be written"
