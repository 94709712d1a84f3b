import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import solov2

NAMES = [
    "Category",
    "Config",
    "ConfigError",
    "DatasetError",
    "Frame",
    "ImageError",
    "Instances",
    "MissingDependencyError",
    "Predictions",
    "Predictor",
    "Solov2Error",
    "TrainingError",
    "WeightsError",
    "__version__",
    "build_model",
    "decode",
    "load",
    "load_config",
    "load_weights",
    "train",
]

REQUIRED = inspect.Parameter.empty

SIGNATURES = {
    "load": {"model": "solov2_nano_coco", "device": "auto", "runtime": "auto", "compiled": False},
    "Predictor.predict": {"self": REQUIRED, "image": REQUIRED, "threshold": None},
    "Predictor.predict_batch": {"self": REQUIRED, "images": REQUIRED, "threshold": None},
    "Predictor": {
        "model": REQUIRED,
        "config": REQUIRED,
        "categories": (),
        "score_threshold": None,
        "device": None,
        "trained_on": "",
        "amp": False,
        "calibration": (),
        "fold": False,
        "compiled": False,
    },
    "decode": {
        "predictions": REQUIRED,
        "frames": REQUIRED,
        "score_threshold": 0.1,
        "mask_threshold": 0.5,
        "pre_nms_top_n": 500,
        "post_nms_top_n": 100,
        "update_threshold": 0.05,
        "decay": "gaussian",
        "sigma": 2.0,
    },
    "load_config": {"name_or_path": REQUIRED, "overrides": ()},
    "build_model": {"config": REQUIRED},
    "load_weights": {"model": REQUIRED, "path": REQUIRED},
    "train": {
        "recipe": "nano",
        "data": None,
        "val": None,
        "images": None,
        "val_images": None,
        "overrides": (),
        "resume": None,
        "device": "auto",
        "strict": False,
        "evaluate_epochs": True,
        "skip_bad_batches": False,
        "loggers": ("tensorboard",),
        "devices": "auto",
        "num_nodes": 1,
        "strategy": "auto",
    },
    "Instances.empty": {"original_hw": REQUIRED, "categories": ()},
    "Instances.from_masks": {"masks": REQUIRED, "labels": REQUIRED, "scores": REQUIRED, "categories": ()},
}

FIELDS = {
    "Category": ["id", "name"],
    "Frame": ["original_hw", "resized_hw", "padded_hw"],
    "Instances": ["original_hw", "labels", "scores", "boxes", "crops", "categories"],
    "Predictions": ["category_logits", "kernels", "mask_features", "strides", "native", "ellipses"],
}


def test_the_names_are_these() -> None:
    assert solov2.__all__ == NAMES
    assert dir(solov2) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    assert getattr(solov2, name) is not None


def test_no_module_takes_the_place_of_a_function() -> None:
    for module in pkgutil.walk_packages(solov2.__path__, "solov2."):
        if module.name != "solov2.__main__":
            importlib.import_module(module.name)
    for name in NAMES:
        assert not inspect.ismodule(getattr(solov2, name)), name


@pytest.mark.parametrize("name", ["nothing_like_it", "_private"])
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'solov2' has no attribute '{name}'"):
        getattr(solov2, name)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    value = solov2
    for part in name.split("."):
        value = getattr(value, part)
    found = {key: parameter.default for key, parameter in inspect.signature(value).parameters.items()}  # type: ignore[arg-type]
    assert found == SIGNATURES[name]
    assert list(found) == list(SIGNATURES[name])


@pytest.mark.parametrize("name", ["decode", "train"])
def test_options_are_named(name: str) -> None:
    parameters = list(inspect.signature(getattr(solov2, name)).parameters.values())
    options = parameters[2:] if name == "decode" else parameters[1:]
    assert {parameter.kind for parameter in options} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name: str) -> None:
    assert [field.name for field in dataclasses.fields(getattr(solov2, name))] == FIELDS[name]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("Error")])
def test_errors_have_one_base(name: str) -> None:
    error = getattr(solov2, name)
    assert issubclass(error, solov2.Solov2Error)
    assert issubclass(error, Exception)


def test_a_missing_package_is_named() -> None:
    error = solov2.MissingDependencyError("lightning", "train", "solov2 train")
    assert str(error) == "solov2 train needs the package 'lightning': pip install 'solov2[train]'"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_every_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(solov2, name))
    assert text is not None
    assert len(text.splitlines()[0]) > 10
