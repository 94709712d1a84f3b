from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.config import Config, load_config
from solov2.data.coco import CocoFile, load_coco
from solov2.inspection.plans import Plan
from solov2.inspection.suggest import OVERLAP, RANGE_FACTORS, Suggestion, Trial, _range_candidates, suggest

from .test_losses import Square, coco

Write = Callable[..., Path]


SQUARE_GRIDS = Path(__file__).parents[1] / "fixtures" / "square_grids.yml"


def nano(size: int = 128, ranges: Any = None, recipe: str | Path = SQUARE_GRIDS) -> Config:
    """The small recipe at one size, for two classes."""
    values = load_config(recipe).model_dump(mode="json")
    values["model"]["num_classes"] = 2
    for split in ("train", "eval", "test"):
        values["data"][split]["reader"]["transforms"] = [{"name": "Resize", "args": {"target_size": [size, size]}}]
    if ranges:
        values["assign"]["size_ranges"] = ranges
    return Config.model_validate(values)


def file_of(write_coco: Write, *squares: Square, hw: tuple[int, int] = (128, 128)) -> CocoFile:
    return load_coco(coco(write_coco, *squares, hw=hw))


def look(file: CocoFile, config: Config) -> tuple[float, Suggestion | None]:
    trial = Trial(file, config)
    before = trial.losses(trial.now)
    return before.share, suggest(trial, before)


def loaded(suggestion: Suggestion, tmp_path: Path, base: str | Path = SQUARE_GRIDS) -> Config:
    """What a recipe of one's own says that holds the suggestion."""
    path = tmp_path / "mine.yml"
    path.write_text(f"_BASE_: [{base}]\nnum_classes: 2\n{suggestion.recipe}\n")
    return load_config(path)


def check_losses(file: CocoFile, suggestion: Suggestion, before: float) -> None:
    """The suggestion does what it says when it is evaluated as a recipe of its own."""
    assert suggestion.losses.share < before
    again = Trial(file, suggestion.config)
    assert again.losses(again.now) == suggestion.losses


def test_nothing_to_suggest(write_coco: Write) -> None:
    assert look(file_of(write_coco, (10, 10, 30), (70, 70, 40)), nano()) == (0, None)


def test_wider_ranges(write_coco: Write, tmp_path: Path) -> None:
    file = file_of(write_coco, (10, 10, 30), (80, 80, 44), (0, 60, 12))
    config = nano(ranges=[[20, 32], [28, 36], [40, 60], [56, 100]])
    file_before, suggestion = look(file, config)
    assert file_before == 1 / 3
    assert suggestion is not None
    assert suggestion.changed == ("scale_ranges",)
    assert suggestion.losses.lost == 0
    assert suggestion.config.model == config.model
    check_losses(file, suggestion, file_before)
    mine = loaded(suggestion, tmp_path)
    assert mine.assign == suggestion.config.assign
    assert mine.model.grid_head == config.model.grid_head


def test_finer_grids(write_coco: Write, tmp_path: Path) -> None:
    squares = tuple((x, y, 8) for y in range(4, 120, 10) for x in range(4, 120, 10))
    file, config = file_of(write_coco, *squares), nano()
    values = config.model_dump(mode="json")
    values["model"]["grid_head"]["grid_sizes"] = [8, 8, 4, 4]
    coarse = Config.model_validate(values)
    before, suggestion = look(file, coarse)
    assert before > 0.3
    assert suggestion is not None
    assert suggestion.changed == ("num_grids",)
    assert all(new >= old for new, old in zip(suggestion.config.model.grid_head.grid_sizes, (8, 8, 4, 4), strict=True))
    check_losses(file, suggestion, before)
    assert loaded(suggestion, tmp_path).model.grid_head == suggestion.config.model.grid_head


def test_larger_pictures(write_coco: Write, tmp_path: Path) -> None:
    file = file_of(write_coco, *((x, 10, 4) for x in range(2, 500, 50)), (100, 200, 150), hw=(512, 512))
    before, suggestion = look(file, nano(224))
    assert before > 0.5  # their masks vanish
    assert suggestion is not None
    assert "target_size" in suggestion.changed
    check_losses(file, suggestion, before)
    mine = loaded(suggestion, tmp_path)
    for split in ("train", "eval", "test"):
        expected = getattr(suggestion.config.data, split).reader.transforms
        assert getattr(mine.data, split).reader.transforms == expected
        assert expected[0].args["target_size"][0] > 224
    assert mine.assign == suggestion.config.assign


def test_what_cannot_be_helped(write_coco: Write) -> None:
    before, suggestion = look(file_of(write_coco, *[(40, 40, 20)] * 4), nano())  # the same place four times
    assert before == 0.75
    assert suggestion is None


@pytest.mark.parametrize("grids", [(40, 24, 16, 12), (5, 5, 5, 5)])
def test_size_ranges_of_all_candidates_are_whole(write_coco: Write, grids: tuple[int, ...]) -> None:
    file = file_of(write_coco, (10, 10, 30), (70, 70, 44), (0, 60, 2))
    trial = Trial(file, nano())
    ranges = [c.size_ranges for c in _range_candidates(trial, Plan(grids, ((8, 64), (70, 80), (60, 256), (128, 160))))]
    assert len(ranges) > 4
    for candidate in ranges:
        assert len(candidate) == 4
        assert all(low <= high for low, high in candidate)
        assert candidate[0][0] <= 2
        assert candidate[-1][1] >= 160
    (first_low, first_high), (second_low, _) = ranges[0][:2]
    assert (first_low, first_high, second_low) == (2, 64, 64)  # the gap is closed
    halved = ranges[-len(RANGE_FACTORS)]
    assert halved[0][1] == pytest.approx(OVERLAP * halved[1][0], abs=2)


def test_grids_of_the_network_itself_stay_as_they_are(write_coco: Write, tmp_path: Path) -> None:
    """Where they are too coarse only larger pictures help."""
    squares = tuple((x, y, 8) for y in range(4, 120, 5) for x in range(4, 120, 5))
    file, config = file_of(write_coco, *squares), nano(recipe="nano")
    before, suggestion = look(file, config)
    assert before > 0.3
    assert suggestion is not None
    assert "num_grids" not in suggestion.changed
    assert "target_size" in suggestion.changed
    assert suggestion.config.model == config.model
    check_losses(file, suggestion, before)
    mine = loaded(suggestion, tmp_path, "nano.yml")
    assert mine.model.grid_head == config.model.grid_head
    assert mine.assign == suggestion.config.assign
