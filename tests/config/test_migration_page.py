"""Every key and flag that docs/migration.md speaks of is what it says."""

import argparse
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from solov2.cli.arguments import COMMANDS
from solov2.config import load
from solov2.config.paddle import RULES
from solov2.config.paddle_operators import _BATCH, _PLAIN, _TRANSFORMS
from solov2.config.paddle_schedules import _DECAYS, _WARMUPS
from solov2.errors import ConfigError

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
OWN = re.compile(
    r"(ShuffleNetV2|GhostPAN)\b.*|base_devices|seed|amp_dtype|run_name|accumulate|checkpoint_(minutes|steps)|CosineDecay\.flat_epochs|\w+Reader\.(group_by_size|repeat_area)|ResNet\.(dcn_version|norm_eval|project_first)"
    r"|freeze|SOLOv2\.position|SOLOv2Head\.(dcn_version|separable|least_part)|SOLOv2Loss\.top_cells|SOLOv2MaskHead\.refinements|OptimizerBuilder\.uniform|(Random)?Resize\.min_scale|RandomFlip\.vertical_prob"
    r"|(RandomRotate90|LargeScaleJitter|RandomPatch|CopyPaste)\b.*"
)
NORMALIZE = "NormalizeImage: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
BESIDE = {  # what an operator or a key cannot do without
    "OptimizerBuilder.optimizer.weight_decay": ["OptimizerBuilder.optimizer.type=AdamW"],
    "RandomResize": "target_size: [[640, 1333], [800, 1333]]",
    "CosineDecay": "max_epochs: 12",
    "ExpWarmup": "steps: 500",
}


class Row(NamedTuple):
    key: str
    value: str
    status: str

    @property
    def test_id(self) -> str:
        return f"{self.status}-{self.key}"


def table(*header: str) -> Iterator[list[str]]:
    """The rows of every table with these column names."""
    start = "| " + " | ".join(header) + " |\n"
    for block in PAGE.split(start)[1:]:
        lines = block.splitlines()[1:]
        for line in lines[: lines.index("") if "" in lines else None]:
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def rows() -> list[Row]:
    found = []
    for key, value, text in table("key", "value", "here"):
        status = re.match(r"\w+", text)
        assert status, text
        name = key.strip("`")
        choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(re.split(r"[{}]", name))]
        found += [Row("".join(parts), value.strip("`"), status.group()) for parts in product(*choices)]
    return found


ROWS = rows()


def overrides(key: str, value: str) -> list[str]:
    """What puts a value at a key, on the command line."""
    block, _, argument = key.partition(".")
    if key in RULES or block in {name.partition(".")[0] for name in RULES}:
        beside = BESIDE.get(key, [])
        assert isinstance(beside, list)
        return [f"{key}={value}", *beside]
    needed = BESIDE.get(block, "")
    assert isinstance(needed, str)
    arguments = f"{argument}: {value}" if argument else ""
    if needed and not needed.startswith(f"{argument}:"):
        arguments = ", ".join(filter(None, (needed, arguments)))
    if block in _DECAYS or block in _WARMUPS or block == "OneCycleLR":
        other = ", {name: PiecewiseDecay}" if block in _WARMUPS else ""
        return [f"LearningRate.schedulers=[{{name: {block}, {arguments}}}{other}]"]
    if block in _BATCH:
        return [f"TrainReader.batch_transforms=[{block}: {{{arguments}}}]"]
    if block == "NormalizeImage":
        return [f"TrainReader.sample_transforms=[NormalizeImage: {{{arguments}}}]"]
    return [f"TrainReader.sample_transforms=[{block}: {{{arguments}}}, {NORMALIZE}]"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yml"
    path.write_text("architecture: SOLOv2\n")
    return path


def test_the_page_has_every_key() -> None:
    operators = {**_TRANSFORMS, **_BATCH, **_DECAYS, **_WARMUPS, **_PLAIN}
    known = {*RULES, *(f"{name}.{key}" for name, rules in operators.items() for key in rules)}
    listed = [row.key for row in ROWS]
    assert sorted(set(listed)) == sorted(listed), "a key is listed twice"
    assert {key for key in known if not OWN.fullmatch(key)} - set(listed) == set()
    assert not [key for key in listed if OWN.fullmatch(key)], "a key of our own is no matter of PaddleDetection's"
    assert {row.status for row in ROWS} == {"understood", "only", "harmless", "refused"}


@pytest.mark.parametrize("row", [row for row in ROWS if row.status != "refused"], ids=lambda row: row.test_id)
def test_an_accepted_key_is_accepted(recipe: Path, row: Row) -> None:
    loaded = load(recipe, overrides(row.key, row.value))
    ignored = [key for key in loaded.translation.ignored if key.endswith(row.key)]
    assert bool(ignored) == (row.status == "harmless")
    assert yaml.safe_load(row.value.replace("!CosineDecay ", "")) is not None or row.value == "null"


@pytest.mark.parametrize("row", [row for row in ROWS if row.status == "only"], ids=lambda row: row.test_id)
def test_another_value_of_an_only_key_is_refused(recipe: Path, row: Row) -> None:
    with pytest.raises(ConfigError) as error:
        load(recipe, overrides(row.key, "something_else"))
    [line] = str(error.value).splitlines()
    assert row.key.rpartition(".")[2] in line
    assert '"something_else" is not supported' in line


@pytest.mark.parametrize("row", [row for row in ROWS if row.status == "refused"], ids=lambda row: row.test_id)
def test_a_refused_key_is_refused_by_name(recipe: Path, row: Row) -> None:
    with pytest.raises(ConfigError) as error:
        load(recipe, overrides(row.key, row.value))
    [line] = str(error.value).splitlines()
    assert row.key.partition(".")[0] in line
    assert "unknown" not in line


FLAGS = [(command, flags) for command, _, flags in table("command", "flag there", "here")]


@pytest.mark.parametrize(("commands", "here"), FLAGS)
def test_a_flag_that_is_named_exists(commands: str, here: str) -> None:
    named = [word.split()[0] for word in re.findall(r"`(-[^`]+)`", here)]
    named += [word for text in re.findall(r"`solov2 ([^`]+)`", here) for word in text.split() if word.startswith("-")]
    for command in commands.replace("all", "train").replace("deploy", "predict").split(", "):
        parser = argparse.ArgumentParser()
        COMMANDS[command][1](parser)
        words = re.findall(r"(?<![\w-])--?[\w-]+", parser.format_help())
        assert set(named) <= set(words)


def test_the_flags_are_found() -> None:
    assert len(FLAGS) > 20
    assert sum("`-" in here for _, here in FLAGS) > 8
