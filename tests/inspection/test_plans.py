from pathlib import Path

import pytest
import yaml

from solov2.config import load_config
from solov2.inspection.plans import Plan, enlarged, recipe_text, with_plan


def test_enlarged_recipes() -> None:
    config = load_config("solov2_nano_nuclei")
    [step] = [s for s in enlarged(config, 1.5).data.eval.reader.transforms if s.name == "Resize"]
    assert (step.args["target_size"], step.args["min_scale"]) == ((96, 4224), 3.0)
    assert enlarged(config, 1) is config
    [step] = [s for s in enlarged(load_config("nano"), 2).data.train.reader.transforms if s.name == "RandomResize"]
    assert step.args["target_size"][0] == (704, 1536)


@pytest.mark.parametrize("recipe", ["nano", "solov2_nano_coco", "solov2_nano_nuclei", "solov2_r50_enhance_coco"])
def test_every_recipe_survives_its_text(recipe: str, tmp_path: Path) -> None:
    config = load_config(recipe)
    plan = Plan(tuple(s + 1 for s in config.model.grid_head.grid_sizes), config.assign.size_ranges, 1.25)
    new = with_plan(config, plan)
    text = recipe_text(new, ("num_grids", "target_size"))
    assert isinstance(yaml.safe_load(text), dict)
    path = tmp_path / "mine.yml"
    path.write_text(f"_BASE_: [{recipe}.yml]\n{text}\n")
    assert load_config(path) == new.model_copy(update={"name": "mine"})
