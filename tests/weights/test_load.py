import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from solov2.errors import WeightsError
from solov2.structures import Category
from solov2.weights.coco_classes import COCO_CATEGORIES
from solov2.weights.files import WeightsFile, write_weights
from solov2.weights.foreign import read_any
from solov2.weights.load import categories_of, load_into, load_pretrained, load_state, load_weights
from tests.weights.foreign_files import (
    AUTHORS_HEAD,
    PADDLE_HEAD,
    arrays,
    authors_checkpoint,
    tensors,
    write_pickle,
    write_torch,
)


class Tiny(nn.Module):
    """The names of a whole model, and nothing behind them."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.grid_head = nn.Module()
        self.grid_head.category_output = nn.Conv2d(4, classes, 1)
        self.grid_head.kernel_output = nn.Conv2d(4, 5, 1)


NAMES = ("disc", "bar")
CATEGORIES = tuple(Category(number, name) for number, name in enumerate(NAMES))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def random_state(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 3
        for name, tensor in model.state_dict().items()
    }


def equal(model: nn.Module, state: dict[str, Tensor], prefix: str = "") -> bool:
    own = model.state_dict()
    return all(
        torch.equal(own[name], state[name])
        for name in own
        if name.startswith(prefix) and not name.endswith("num_batches_tracked")
    )


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """Weights of a whole model with the two classes of ``NAMES``."""
    state = random_state(Tiny())
    path = tmp_path / "a.safetensors"
    write_weights(path, WeightsFile(state, config={"model": {}}, categories=CATEGORIES, score_threshold=0.4))
    return path, state


def test_loading_what_fits(written: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = written
    model = Tiny()
    assert not equal(model, state)
    file = load_weights(model, path)
    assert equal(model, state)
    assert (file.categories, file.score_threshold) == (CATEGORIES, 0.4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backbone.0.weight": None, "grid_head.kernel_output.bias": None},
            "2 missing from it (backbone.0.weight, grid_head.kernel_output.bias)",
        ),
        ({"neck.weight": torch.ones(1)}, "1 unknown to the model (neck.weight)"),
        (
            {"grid_head.category_output.bias": torch.ones(7)},
            "1 of another shape (grid_head.category_output.bias (7,) instead of (2,))",
        ),
        (
            {"backbone.0.weight": None, "neck.weight": torch.ones(1)},
            "1 missing from it (backbone.0.weight); 1 unknown to the model (neck.weight)",
        ),
        (
            {f"n{number}": torch.ones(1) for number in range(7)},
            "7 unknown to the model (n0, n1, n2, n3, n4, …)",
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(change: dict[str, Tensor | None], message: str) -> None:
    model = Tiny()
    before = state_of(model)
    given = {name: tensor for name, tensor in {**random_state(Tiny()), **change}.items() if tensor is not None}
    with pytest.raises(WeightsError) as error:
        load_state(model, given, "a.safetensors")
    assert str(error.value) == (
        f"a.safetensors: does not fit the model: {message}; use the recipe the weights were trained with"
    )
    assert equal(model, before)


def test_loading_by_path_names_the_file(written: tuple[Path, dict[str, Tensor]]) -> None:
    with pytest.raises(WeightsError, match=f"^{written[0]}: does not fit the model: 2 of another shape"):
        load_weights(Tiny(classes=3), written[0])


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_pretrained_with_the_same_classes(written: tuple[Path, dict[str, Tensor]], suffix: str) -> None:
    path, state = written
    model = Tiny()
    load_pretrained(model, path.with_suffix(suffix), NAMES)
    assert equal(model, state)


@pytest.mark.parametrize(
    ("classes", "names"),
    [(3, ("disc", "bar", "ring")), (2, ("bar", "disc")), (2, ("disc", "cone")), (2, ())],
)
def test_pretrained_with_other_classes(
    written: tuple[Path, dict[str, Tensor]],
    caplog: pytest.LogCaptureFixture,
    classes: int,
    names: tuple[str, ...],
) -> None:
    path, state = written
    model = Tiny(classes)
    before = state_of(model)
    with caplog.at_level(logging.INFO):
        load_pretrained(model, path, names)
    assert equal(model, state, "backbone.")
    assert equal(model, state, "grid_head.kernel_output.")
    assert equal(model, before, "grid_head.category_output.")
    assert caplog.messages == [
        f"{path}: 7 of the model's 9 tensors start from it",
        "its classes are others: the category layer starts anew, everything else is taken over",
    ]


def test_pretrained_bare_backbone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = random_state(Tiny().backbone)
    path = tmp_path / "b.safetensors"
    write_weights(path, WeightsFile(state))
    model = Tiny()
    before = state_of(model)
    with caplog.at_level(logging.INFO):
        load_pretrained(model, path, NAMES)
    assert equal(model.backbone, state)
    assert equal(model, before, "grid_head.")
    assert caplog.messages == [f"{path}: 5 of the model's 9 tensors start from it"]


def test_pretrained_part_of_a_backbone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "b.safetensors"
    write_weights(path, WeightsFile({"0.weight": torch.ones(4, 3, 1, 1)}))
    load_pretrained(Tiny(), path, NAMES)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{path}: 4 of the backbone's tensors start at random "
        "(backbone.1.bias, backbone.1.running_mean, backbone.1.running_var, backbone.1.weight)"
    ]


def test_pretrained_where_nothing_fits(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_weights(path, WeightsFile({"0.weight": torch.ones(9, 3, 1, 1), "other": torch.ones(1)}))
    model = Tiny()
    before = state_of(model)
    with pytest.raises(WeightsError, match=r"of its 2 tensors none fits the model; expected weights of its kind"):
        load_pretrained(model, path, NAMES)
    assert equal(model, before)


@pytest.mark.parametrize("same_classes", [True, False])
def test_the_shipped_detector_fills_the_recipe_that_asks_for_it(
    caplog: pytest.LogCaptureFixture, same_classes: bool
) -> None:
    from solov2 import build_model, load_config

    config = load_config("nano")
    model = build_model(config)
    before = state_of(model)
    assert config.train.init_weights is not None
    load_pretrained(model, config.train.init_weights, tuple(c.name for c in COCO_CATEGORIES) if same_classes else ())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    kept = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    fresh = ("mask_branch.", "fpn.finest.", "grid_head.kernel_output.")  # what a detector of boxes does not have
    if not same_classes:
        fresh += ("grid_head.category_output.",)
    counts = {name for name in before if name.endswith("num_batches_tracked")}
    assert kept - counts == {name for name in before if name.startswith(fresh)} - counts


class Head(nn.Module):
    """A network of one layer that every framework has."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.grid_head = nn.Module()
        self.grid_head.category_output = nn.Conv2d(4, classes, 3)


FOREIGN = ("disc", "traffic light", "bar")


def head_equals(model: nn.Module, weight: Tensor, bias: Tensor) -> bool:
    state = model.state_dict()
    return torch.equal(state["grid_head.category_output.weight"], weight) and torch.equal(
        state["grid_head.category_output.bias"], bias
    )


def test_loading_a_file_of_another_framework(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_torch(tmp_path / "a.pth", authors_checkpoint(tensors(AUTHORS_HEAD)))
    model = Head()
    with caplog.at_level(logging.INFO):
        file = load_weights(model, tmp_path / "a")
    assert head_equals(model, *tensors(AUTHORS_HEAD).values())
    assert file.categories == tuple(Category(number, name) for number, name in enumerate(FOREIGN, start=1))
    assert (file.config, file.score_threshold) == ({}, None)
    assert caplog.messages[-1] == f"{path}: 2 tensors with the authors' names"


def test_loading_what_has_been_read(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.pdparams", arrays(PADDLE_HEAD))
    model = Head()
    file = load_into(model, read_any(path), path)
    assert head_equals(model, *tensors(PADDLE_HEAD).values())
    assert file.categories == ()


@pytest.mark.parametrize(
    ("classes", "message"),
    [(2, "is for 3 classes, the model for 2"), (3, "numbers that are not finite")],
)
def test_a_file_of_another_framework_that_does_not_fit_changes_nothing(
    tmp_path: Path, classes: int, message: str
) -> None:
    content = arrays(PADDLE_HEAD)
    if classes == len(FOREIGN):
        content["solov2_head.bbox_head.solo_cate.bias"][1] = float("nan")
    path = write_pickle(tmp_path / "a.pdparams", content)
    model = Head(classes)
    before = state_of(model)
    with pytest.raises(WeightsError, match=f"^{path}: .*{message}"):
        load_weights(model, path)
    assert equal(model, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_our_weights_must_be_finite(value: float) -> None:
    model = Tiny()
    before = state_of(model)
    given = random_state(Tiny())
    given["backbone.1.running_var"][2] = value
    with pytest.raises(WeightsError, match=r"^a: backbone\.1\.running_var holds numbers that are not finite"):
        load_state(model, given, "a")
    assert equal(model, before)


def test_our_weights_must_be_real() -> None:
    given = {**random_state(Tiny()), "backbone.1.bias": torch.ones(4, dtype=torch.int32)}
    with pytest.raises(WeightsError, match=r"^a: backbone\.1\.bias holds int32 numbers; expected real ones"):
        load_state(Tiny(), given, "a")


@pytest.mark.parametrize(
    ("content", "classes", "names", "taken"),
    [
        (authors_checkpoint(tensors(AUTHORS_HEAD)), 3, FOREIGN, True),
        (authors_checkpoint(tensors(AUTHORS_HEAD)), 3, ("disc", "traffic_light", "bar"), True),
        (authors_checkpoint(tensors(AUTHORS_HEAD)), 3, ("disc", "bar", "traffic light"), False),
        (authors_checkpoint(tensors(AUTHORS_HEAD)), 2, ("disc", "bar"), False),
        ({"state_dict": tensors(AUTHORS_HEAD)}, 3, ("any", "three", "names"), True),  # it does not say which it has
        ({"state_dict": tensors(AUTHORS_HEAD)}, 2, ("disc", "bar"), False),
    ],
)
def test_pretrained_from_another_framework(
    tmp_path: Path, content: object, classes: int, names: tuple[str, ...], taken: bool
) -> None:
    path = write_torch(tmp_path / "a.pth", content)
    model = Head(classes)
    before = state_of(model)
    if not taken:
        with pytest.raises(WeightsError, match="of its 2 tensors none fits the model"):
            load_pretrained(model, path, names)
        assert equal(model, before)
        return
    found = load_pretrained(model, path, names)
    assert head_equals(model, *tensors(AUTHORS_HEAD).values())
    assert (found.unused, found.missing) == ({}, ())


def test_pretrained_tells_what_it_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from solov2.model.resnet import ResNet

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = ResNet(18, project_first=False)

    model = Network()
    given = {
        "conv1.weight": torch.ones(64, 3, 7, 7),
        "bn1.weight": torch.ones(63),
        "bn1.num_batches_tracked": torch.tensor(3),
        "layer1.0.conv1.weight": torch.full((64, 64, 3, 3), 2.0),
        "layer1.0.bn1.weight": torch.full((64,), 3.0),
        "fc.weight": torch.ones(1000, 512),
        "fc.bias": torch.ones(1000),
    }
    path = write_torch(tmp_path / "resnet18.pth", given)
    with caplog.at_level(logging.INFO):
        found = load_pretrained(model, path)
    assert model.backbone.stem[0].conv.weight.unique().tolist() == [1]
    assert model.backbone.stages[0][0].conv1.norm.weight.unique().tolist() == [3]
    assert caplog.messages[:3] == [
        f"{path}: 3 of the model's 100 tensors start from it",
        f"{path}: 1 of its tensors is of another shape and left out (bn1.weight (63,) instead of (64,))",
        f"{path}: 2 of its tensors are not used (fc.bias, fc.weight)",
    ]
    assert caplog.messages[3].startswith(
        f"{path}: 97 of the backbone's tensors start at random (backbone.stages.0.0.conv1.norm.bias"
    )
    assert len(found.missing) == 97


def test_categories_of_names() -> None:
    assert categories_of(()) == ()
    assert categories_of(("a", "b_c")) == (Category(1, "a"), Category(2, "b c"))
    coco = tuple(category.name.replace(" ", "_") for category in COCO_CATEGORIES)
    assert categories_of(coco) == COCO_CATEGORIES
    assert categories_of(coco[:-1])[-1] == Category(79, "hair drier")
