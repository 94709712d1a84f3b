import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from solov2.config import load_config, resolve_recipe, shipped_recipes
from solov2.config.load import read_tree, recipe_folder
from solov2.errors import ConfigError

Write = Callable[..., Path]


def test_bases_in_order_then_the_file(write: Write) -> None:
    write("epoch: 1\nworker_num: 1\nlog_iter: 1\nResNet: {depth: 18}", "bases/first.yml")
    write("epoch: 2\nworker_num: 2\nResNet: {variant: d}", "bases/second.yml")
    tree, problems = read_tree(write("_BASE_: [bases/first.yml, bases/second.yml]\nepoch: 3\n"))
    assert problems == []
    assert tree.values == {
        "architecture": "SOLOv2",
        "epoch": 3,
        "worker_num": 2,
        "log_iter": 1,
        "ResNet": {"depth": 18, "variant": "d"},
    }
    assert Path(tree.origin(("worker_num",))).name == "second.yml:3"


def test_bases_are_relative_to_their_file_absolute_or_below_home(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    absolute = write("log_iter: 7", "elsewhere/a.yml")
    write("worker_num: 5", "home/h.yml")
    write("snapshot_epoch: 4", "up.yml")
    write("_BASE_: [../up.yml]", "deep/middle.yml")
    tree, _ = read_tree(write(f"_BASE_: [deep/middle.yml, {absolute}, ~/h.yml]"))
    assert [tree.values[key] for key in ("snapshot_epoch", "log_iter", "worker_num")] == [4, 7, 5]


def test_a_base_may_be_a_shipped_recipe(write: Write) -> None:
    config = load_config(write("_BASE_: [configs/nano.yml]\nnum_classes: 2"))
    assert (config.model.num_classes, config.model.fpn.channels) == (2, 96)


def test_the_same_base_twice_is_no_cycle(write: Write) -> None:
    write("epoch: 5", "base.yml")
    write("_BASE_: [base.yml]", "left.yml")
    assert load_config(write("_BASE_: [left.yml, base.yml]")).train.epochs == 5


def test_a_cycle_is_an_error(write: Write) -> None:
    write("_BASE_: [recipe.yml]", "base.yml")
    with pytest.raises(
        ConfigError, match=r"base\.yml:2: .*leads back to itself: recipe\.yml -> base\.yml -> recipe\.yml"
    ):
        load_config(write("_BASE_: [base.yml]"))


def test_everything_unreadable_is_reported_at_once(write: Write) -> None:
    write("a: [1", "broken.yml")
    with pytest.raises(ConfigError) as error:
        load_config(write("_BASE_: [broken.yml, missing.yml]"))
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "broken.yml:" in lines[0]
    assert "not valid YAML" in lines[0]
    assert "recipe.yml:2: _BASE_: no file missing.yml" in lines[1]


@pytest.mark.parametrize("bases", ["base.yml", "{a: 1}", "[1]"])
def test_bases_must_be_a_list_of_files(write: Write, bases: str) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yml:2: _BASE_: expected a list of files"):
        load_config(write(f"_BASE_: {bases}"))


@pytest.mark.parametrize(("content", "message"), [(b"- 1", "is a mapping"), (b"\xff\xfe\xfa", "UTF-8")])
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.yml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_an_empty_file_lacks_the_architecture(tmp_path: Path) -> None:
    path = tmp_path / "empty.yml"
    path.touch()
    with pytest.raises(ConfigError, match=r"empty\.yml: architecture: is required"):
        load_config(path)


def test_overrides_are_all_merged(write: Write) -> None:
    path = write("MaskMatrixNMS: {sigma: 1.5, pre_nms_top_n: 9}")
    overrides = [
        "SOLOv2Head.mask_nms.name=MaskMatrixNMS",
        "MaskMatrixNMS.pre_nms_top_n=7",
        "MaskMatrixNMS.kernel=linear",
    ]
    decode = load_config(path, overrides).decode
    assert (decode.sigma, decode.pre_nms_top_n, decode.decay) == (1.5, 7, "linear")


def test_later_overrides_win(write: Write) -> None:
    assert load_config(write(), ["epoch=3", "epoch=4"]).train.epochs == 4


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("weights=a=b", ("weights",), "a=b"),
        ("weights=", ("weights",), None),
        ("LearningRate.base_lr=1e-4", ("LearningRate", "base_lr"), 1e-4),
        ("ResNet={depth: 18, freeze_at: -1}", ("ResNet",), {"depth": 18, "freeze_at": -1}),
        ("a.b.c=[1, no]", ("a", "b", "c"), [1, False]),
    ],
)
def test_override_values_are_yaml(write: Write, override: str, path: tuple[str, ...], value: object) -> None:
    tree, problems = read_tree(write(), [override])
    found: object = tree.values
    for key in path:
        assert isinstance(found, dict)
        found = found[key]
    assert (found, problems) == (value, [])
    assert tree.origin(path) == "-o"


@pytest.mark.parametrize("override", ["epoch", "=3", "a..b=1", ".a=1"])
def test_an_override_without_a_key_or_value(write: Write, override: str) -> None:
    with pytest.raises(ConfigError, match=r"-o: .* is not KEY\.SUBKEY=VALUE"):
        load_config(write(), [override])


def test_a_broken_override_does_not_hide_other_problems(write: Write) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write("epohc: 3"), ["worker_num=[1", "epoch=many"])
    text = str(error.value)
    assert "-o worker_num=[1: not valid YAML" in text
    assert "recipe.yml:2: epohc: unknown key; did you mean epoch?" in text
    assert '-o: epoch: expected a whole number, got "many"' in text


@pytest.mark.parametrize(
    "spelling", ["{}", "{}.yml", "{}.yaml", "configs/{}.yml", "configs/solov2/{}.yml", "./configs/{}"]
)
def test_shipped_recipes_by_name(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "solov2")
    name = "solov2_r50_fpn_1x_coco"
    assert resolve_recipe(spelling.format(name)) == recipe_folder() / f"{name}.yml"
    assert ("using the shipped recipe" in caplog.text) == (spelling != "{}")  # a bare name means nothing else


def test_an_existing_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano.yml").touch()
    assert resolve_recipe("nano.yml") == Path("nano.yml")
    assert resolve_recipe("nano") == recipe_folder() / "nano.yml"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("solov2_r50_fpn_1x_cooc", "did you mean solov2_r50_fpn_1x_coco"),
        ("other/nano.yml", "did you mean nano"),
        ("zzz", "give a file, or one of: adelaidet_R101_3x,"),
        ("configs", "give a file, or one of"),
    ],
)
def test_an_unknown_recipe_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_recipe(name)


def test_shipped_recipes_are_listed_without_their_bases() -> None:
    names = shipped_recipes()
    assert names == sorted(names)
    assert {"nano", "solov2_r50_fpn_1x_coco", "solov2_r50_fpn_3x_coco"} <= set(names)
    assert "runtime" not in names
