import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.config import Config, load_config
from solov2.config.own_data import with_own_data
from solov2.errors import ConfigError
from solov2.inspection.report import CLASSES_SHOWN, as_json, as_text, inspect_data

from ..data.records import annotation, picture
from .test_losses import coco

Write = Callable[..., Path]


SQUARE_GRIDS = Path(__file__).parents[1] / "fixtures" / "square_grids.yml"


def config_for(path: Path, overrides: tuple[str, ...] = (), recipe: str | Path = "nano") -> Config:
    return with_own_data(load_config(recipe, overrides), data=path)


def test_a_sound_data_set(write_coco: Write) -> None:
    path = coco(write_coco, (10, 10, 30), (70, 70, 40))
    found = inspect_data(config_for(path))
    assert found.defects == 0
    assert found.losses is not None
    assert found.losses.lost == 0
    assert found.suggestion is None
    text = as_text(found)
    assert f"{path}: no defect found" in text
    assert "pictures   2, of which 1 without instances" in text
    assert "with recipe nano: 0.0 % of the instances train nothing" in text
    assert "that is next to nothing" in text
    assert "remarks\n  1 pictures without instances are not trained on; TrainDataset.allow_empty: true does\n" in text
    assert "  1 classes have no instance: bar" in text
    assert max(map(len, text.splitlines())) <= max(120, len(str(path)) + 20)


def test_defects_of_both_kinds(write_coco: Write) -> None:
    path = write_coco([picture()], [annotation(1), annotation(2, bbox=[20, 4, 8, 8]), annotation(3, segmentation=[])])
    found = inspect_data(config_for(path))
    assert found.defects == 3  # the second is the first's repetition, too
    text = as_text(found)
    assert "annotation 3 (1.png): empty polygon" in text
    assert "these are left out of training" in text
    assert "annotation 2 (1.png): box [20, 4, 8, 8]; its segmentation spans [4, 4, 8, 8]" in text
    assert "these are trained on as they are" in text


def test_a_suggestion_is_told_with_its_price(write_coco: Write) -> None:
    squares = [(x, y, 2) for y in range(1, 126, 3) for x in range(1, 126, 3)]  # more than cells in a row
    found = inspect_data(config_for(coco(write_coco, *squares), recipe=SQUARE_GRIDS))
    assert found.losses is not None
    if found.losses.share <= 0.01:
        pytest.fail("the example no longer collides")
    assert found.suggestion is not None
    text = as_text(found)
    before, after = (100 * losses.share for losses in (found.losses, found.suggestion.losses))
    assert f"instead of {before:.1f} % would train nothing" in text
    assert after < before
    assert "in a recipe of your own:" in text
    for line in found.suggestion.recipe.splitlines():
        assert f"  {line}\n" in f"{text}\n"


@pytest.mark.parametrize("images", [[], [picture()]])
def test_without_an_instance(write_coco: Write, images: list[dict[str, Any]]) -> None:
    found = inspect_data(config_for(write_coco(images)))
    assert found.losses is None
    assert found.suggestion is None
    assert "train nothing" not in as_text(found)
    json.dumps(as_json(found))


def test_pictures_are_looked_at_on_request(write_coco: Write) -> None:
    path = write_coco([picture()], [annotation()], pictures=False)
    assert inspect_data(config_for(path)).defects == 0
    found = inspect_data(config_for(path), pictures=True)
    assert [problem.kind for problem in found.problems] == ["missing or unreadable picture"]
    assert found.statistics.pictures == 0


def test_more_instances_than_are_predicted(write_coco: Write) -> None:
    path = coco(write_coco, (10, 10, 30), (70, 70, 40), (20, 70, 40))
    found = inspect_data(config_for(path, ("MaskMatrixNMS.post_nms_top_n=2",)))
    assert any("a picture holds 3 instances, but at most 2 are predicted" in remark for remark in found.remarks)


def test_another_number_of_classes(write_coco: Write) -> None:
    path = coco(write_coco, (10, 10, 30))
    values = config_for(path).model_dump(mode="json")
    values["model"]["num_classes"] = 5
    found = inspect_data(Config.model_validate(values))
    assert "the recipe has 5 classes, the data set 2: state num_classes: 2" in found.remarks


def test_of_many_classes_the_ends_are_listed(write_coco: Write) -> None:
    categories = [(number, f"class {number}") for number in range(1, 101)]
    text = as_text(inspect_data(config_for(write_coco([picture()], [annotation()], categories))))
    assert f"  … {100 - CLASSES_SHOWN} more" in text
    assert "    1  class 1 " in text
    assert "class 50 " not in text
    assert text.index("class 100 ") < text.index("    7  class 7 ")  # the only one that occurs comes last


def test_the_same_as_data(write_coco: Write) -> None:
    path = coco(write_coco, (10, 10, 30), (70, 70, 40), (70, 70, 40))
    found = inspect_data(config_for(path))
    data = json.loads(json.dumps(as_json(found)))
    assert data["annotations"] == str(path)
    assert data["recipe"] == "nano"
    assert data["statistics"]["instances"] == 3
    assert data["statistics"]["classes"][-1] == {"id": 7, "name": "disc", "instances": 3, "pictures": 1}
    assert data["suspicious"][0]["kind"] == "object annotated twice"
    assert data["losses"]["lost_share"] == pytest.approx(1 / 3)
    assert data["losses"]["collided"] * 3 == data["losses"]["instances"]
    assert len(data["resized_sizes"]) == len(data["size_quantiles"])
    assert len(data["losses"]["levels"]) == 4


def test_a_recipe_without_data() -> None:
    config = with_own_data(load_config("nano"), val="x.json", images="y")
    values = config.model_dump(mode="json")
    values["data"]["train"]["source"]["anno_path"] = None
    with pytest.raises(ConfigError, match="names no annotation file"):
        inspect_data(Config.model_validate(values))


def test_pictures_that_are_labelled_in_part(write_coco: Write) -> None:
    categories = [(number, f"class {number}") for number in range(1, 9)]
    images = [
        picture(1, labelled_categories="all"),
        picture(2, labelled_categories=[3]),
        picture(3, labelled_categories=[1, 2, 3, 4, 5, 6, 7]),
        picture(4, labelled_categories="class 99"),
    ]
    found = inspect_data(config_for(write_coco(images, categories=categories)))
    assert found.statistics.partial == 2
    assert found.statistics.known[:2] == (("class 3", 2), ("class 1", 1))
    assert [problem.kind for problem in found.problems] == ["unreadable labelled categories"]
    line = (
        "labelled   2 pictures for some classes only: class 3 (2), class 1 (1), class 2 (1), class 4 (1), class 5 (1), "
    )
    assert f"{line}class 6 (1) and 1 more\n" in as_text(found)


@pytest.mark.parametrize(("fields", "expected"), [({}, ""), ({"labelled_categories": []}, "some classes only: none\n")])
def test_a_line_on_labels_only_where_there_is_need(write_coco: Write, fields: dict[str, Any], expected: str) -> None:
    text = as_text(inspect_data(config_for(write_coco([picture(1, **fields)]))))
    assert ("labelled" in text) == bool(expected)
    assert expected in f"{text}\n"


@pytest.mark.parametrize("recipe", ["nano", "solov2_nano_coco", "solov2_nano_nuclei"])
def test_grids_that_are_the_networks_maps(write_coco: Write, recipe: str) -> None:
    """Their number of cells depends on the picture: the table says how large a cell is."""
    config = config_for(coco(write_coco, (10, 10, 30), (70, 70, 40)), recipe=recipe)
    found = inspect_data(config)
    assert found.losses is not None
    strides = config.model.grid_head.strides
    assert len(found.losses.levels) == len(strides)
    rows = [line.split()[:2] for line in as_text(found).splitlines() if " px " in line]
    assert rows == [[str(stride), "px"] for stride in strides]
    json.dumps(as_json(found))
