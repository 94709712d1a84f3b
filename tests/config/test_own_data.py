"""The user's files take the place of the recipe's: one annotation file, or several."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.config import load_config
from solov2.config.own_data import with_own_data
from solov2.config.schema_data import SourceConfig
from solov2.errors import ConfigError, DatasetError


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """a.json of two classes, b.json of one, in folders of their own; c.json beside the first."""
    monkeypatch.chdir(tmp_path)
    for path, names in (("one/a.json", ("disc", "bar")), ("two/b.json", ("disc",)), ("one/c.json", ("disc",))):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(json.dumps({"categories": [{"id": 1, "name": name} for name in names]}))


@pytest.mark.parametrize(
    ("given", "anno_path", "image_dir"),
    [
        ({"data": "one/a.json"}, "one/a.json", "one"),
        ({"data": Path("one/a.json"), "images": "x"}, "one/a.json", "x"),
        ({"data": ["one/a.json"], "images": ["x"]}, "one/a.json", "x"),
        ({"data": ["one/a.json", "one/c.json"]}, ("one/a.json", "one/c.json"), "one"),
        ({"data": ["one/a.json", Path("two/b.json")]}, ("one/a.json", "two/b.json"), ("one", "two")),
        ({"data": ["one/a.json", "two/b.json"], "images": "x"}, ("one/a.json", "two/b.json"), "x"),
        ({"data": ["one/a.json", "two/b.json"], "images": ["x", "y"]}, ("one/a.json", "two/b.json"), ("x", "y")),
    ],
)
def test_files_and_folders(
    files: None,
    tmp_path: Path,
    given: dict[str, Any],
    anno_path: str | tuple[str, ...],
    image_dir: str | tuple[str, ...],
) -> None:
    config = with_own_data(load_config("nano"), **given)
    source = config.data.train.source

    def below(paths: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return str(tmp_path / paths) if isinstance(paths, str) else tuple(str(tmp_path / path) for path in paths)

    assert (source.dataset_dir, source.anno_path, source.image_dir) == ("", below(anno_path), below(image_dir))
    assert config.model.num_classes == 2
    assert config.data.eval.source.anno_path is None


def test_evaluation_data_beside_several_files(files: None, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": ["one/a.json", "one/c.json"], "val": "two/b.json"}
    for more, expected in (({}, "two"), ({"images": "x"}, "x"), ({"images": ["x", "y"], "val_images": "z"}, "z")):
        source = with_own_data(load_config("nano"), **given, **more).data.eval.source
        assert (source.anno_path, source.image_dir) == (str(tmp_path / "two/b.json"), str(tmp_path / expected))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"data": ["one/a.json", "two/b.json"], "images": ["x", "y", "z"]},
            "2 annotation files and 3 picture folders: give one folder for all, or one for each",
        ),
        (
            {"data": "one/a.json", "images": ["x", "y"]},
            "1 annotation files and 2 picture folders: give one folder for all, or one for each",
        ),
        (
            {"data": ["one/a.json", "two/b.json"], "val": "one/c.json", "images": ["x", "y"]},
            "--images names 2 folders: say with --val-images which has the pictures of --val",
        ),
    ],
)
def test_folders_that_do_not_fit(files: None, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        with_own_data(load_config("nano"), **given)
    assert str(error.value) == message


def test_a_first_file_that_is_missing(files: None) -> None:
    with pytest.raises(DatasetError, match=r"none\.json: no such file"):
        with_own_data(load_config("nano"), data=["none.json", "one/a.json"])


@pytest.mark.parametrize(
    ("text", "anno_path", "image_dir"),
    [
        ("anno_path: a.json, image_dir: i", "a.json", "i"),
        ("anno_path: [a.json], image_dir: [i]", "a.json", "i"),
        ("anno_path: [a.json, b.json], image_dir: i", ("a.json", "b.json"), "i"),
        ("anno_path: [a.json, b.json], image_dir: [i, j]", ("a.json", "b.json"), ("i", "j")),
        ("anno_path: [a.json, b.json], image_dir: null", ("a.json", "b.json"), ""),
        ("anno_path: null", None, ""),
    ],
)
def test_lists_in_a_recipe(write: Callable[..., Path], text: str, anno_path: Any, image_dir: Any) -> None:
    path = write(f"TrainDataset: {{{text}}}\n")
    source = load_config(path).data.train.source
    assert (source.anno_path, source.image_dir) == (anno_path, image_dir)
    assert SourceConfig.model_validate_json(source.model_dump_json()) == source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anno_path: 3", "TrainDataset.anno_path: expected text, or a list of texts, got 3"),
        ("anno_path: []", "TrainDataset.anno_path: expected text, or a list of texts, got []"),
        ("anno_path: [a, 1]", 'TrainDataset.anno_path: expected text, or a list of texts, got ["a", 1]'),
        ("image_dir: {a: b}", 'TrainDataset.image_dir: expected text, or a list of texts, got {"a": "b"}'),
        (
            "anno_path: [a, b], image_dir: [x, y, z]",
            "TrainDataset.anno_path: names 2 annotation files, but image_dir 3 folders: "
            "expected one folder for each, or one for all",
        ),
        (
            "anno_path: a, image_dir: [x, y]",
            "TrainDataset.anno_path: names 1 annotation files, but image_dir 2 folders: "
            "expected one folder for each, or one for all",
        ),
    ],
)
def test_lists_that_are_refused(problems: Callable[..., list[str]], text: str, message: str) -> None:
    (line,) = problems(f"TrainDataset: {{{text}}}\n")
    assert line.endswith(message)
    assert line.startswith("recipe.yml:")
