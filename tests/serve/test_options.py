"""What the operator says: flags, PaddleHub's file, names of models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from solov2.cli import _parser, main
from solov2.cli.serve import read_options
from solov2.errors import ConfigError, WeightsError
from solov2.serve.hub_config import read_hub_config
from solov2.serve.models import default_device, load_models
from solov2.serve.options import Limits, ServeOptions


def parsed(*words: str) -> argparse.Namespace:
    return _parser().parse_args(words)


def test_the_defaults() -> None:
    for words in (("serve",), ("serving", "start")):
        options = read_options(parsed(*words))
        assert options == ServeOptions()
        assert (options.host, options.port, options.models) == ("127.0.0.1", 8866, ("solov2",))


def test_paddlehubs_flags(tmp_path: Path) -> None:
    words = "--modules solov2==1.2.0 nuclei --port 9000 --use_gpu --gpu 1,2 --use_multiprocess --workers 3"
    options = read_options(parsed("serving", "start", *words.split(" "), "--modules_info", "{}"))
    assert (options.models, options.port, options.device) == (("solov2==1.2.0", "nuclei"), 9000, "cuda:1")


def test_our_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLOV2_API_KEY", "from the environment")
    words = "--host 0.0.0.0 --device cpu --queue 2 --batch 3 --batch-wait 5 --deadline 1.5 --max-body 0.5 "
    words += f"--max-pixels 2.5 --max-images 4 --save_dir {tmp_path} --cors https://a.example"
    options = read_options(parsed("serve", *words.split(" ")))
    assert options.limits == Limits(
        queue=2,
        batch=3,
        batch_wait_s=0.005,
        deadline_s=1.5,
        body_bytes=1 << 19,
        pixels=2_500_000,
        images=4,
    )
    assert (options.host, options.device, options.save_dir) == ("0.0.0.0", "cpu", tmp_path)
    assert (options.api_key, options.origins) == ("from the environment", ("https://a.example",))
    assert read_options(parsed("serve", "--api-key", "given")).api_key == "given"


def test_flags_that_are_given_again_add_to_the_first() -> None:
    options = read_options(parsed("serve", "-m", "a", "-m", "b", "c", "--cors", "https://d", "--cors", "https://e"))
    assert (options.models, options.origins) == (("a", "b", "c"), ("https://d", "https://e"))
    assert read_options(parsed("serve")).models == ("solov2",)  # and not to those of the last command line


def test_one_request_may_always_be_as_large_as_is_allowed() -> None:
    limits = read_options(parsed("serve", "--max-body", "300", "--max-pixels", "150")).limits
    assert (
        (limits.buffered_bytes, limits.waiting_pixels) == (limits.body_bytes, limits.pixels) == (300 << 20, 150_000_000)
    )


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines", " space", "end\r"])
def test_a_key_that_no_client_can_send(key: str) -> None:
    with pytest.raises(ConfigError, match="no client can send") as caught:
        ServeOptions(api_key=key)
    assert "schl" not in str(caught.value)


def test_the_key_is_in_no_log() -> None:
    assert "secret" not in repr(ServeOptions(api_key="secret"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "70000"], "port is 70000"),
        (["--queue", "0"], "queue is 0"),
        (["--batch-wait", "-1"], "batch-wait-s is -0.001"),
        (["--deadline", "nan"], "deadline-s is nan"),
        (["--deadline", "inf"], "deadline-s is inf"),
        (["--max-pixels", "inf"], "inf is no limit"),
        (["--use_gpu", "-i", "x"], "--gpu is 'x'"),
        (["-c", "/nowhere.json"], "cannot be read"),
        (["-m", "nope"], "'nope' is neither a file nor the name of a model"),
        (["-m", "nuclei", "nuclei"], "two models are called 'nuclei'"),
        (["--save_dir", "/dev/null/x"], "cannot be written"),
        (["--runtime", "onnxruntime"], "onnxruntime runs exported files"),
    ],
)
@pytest.mark.usefixtures("root_logger")
def test_one_line_and_code_2(
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path))
    port = [] if "-p" in words else ["-p", "0"]
    assert main(["serve", *port, *words]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("solov2: error: ")]
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.usefixtures("root_logger")
def test_without_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solov2.cli.serve.find_spec", lambda name: None if name == "uvicorn" else name)
    assert main(["serving", "start", "-m", "solov2"]) == 2
    assert "the service needs the package 'uvicorn': pip install 'solov2[serve]'" in capsys.readouterr().err


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_paddlehubs_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config.json",
        {
            "modules_info": {
                "solov2": {"init_args": {"version": "1.2.0"}, "predict_args": {"threshold": 0.4, "use_gpu": False}},
                "nuclei": {},
            },
            "port": 8867,
            "use_multiprocess": False,
            "workers": 2,
            "use_gpu": True,
            "gpu": "3",
        },
    )
    options = read_options(parsed("serving", "start", "-c", str(path)))
    assert (options.models, options.port, options.device) == (("solov2", "nuclei"), 8867, "cuda:3")
    assert options.defaults == {"solov2": {"threshold": 0.4}, "nuclei": {}}
    assert read_options(parsed("serve", "-c", str(path), "-p", "1", "-m", "a")).models == ("a",)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ([], "expected an object with modules_info"),
        ({"prot": 1}, "unknown key 'prot'"),
        ({"port": "8866"}, "port is '8866'; expected int"),
        ({"port": True}, "port is True; expected int"),
        ({"modules_info": {"solov2": []}}, "solov2: expected an object"),
        ({"modules_info": {"solov2": {"predict_args": {"foo": 1}}}}, "unknown key 'foo'"),
        ({"modules_info": {"solov2": {"predict_args": {"threshold": 7}}}}, "threshold is 7"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_hub_config(write(tmp_path / "config.json", value))
    assert said in str(caught.value)


@pytest.mark.parametrize(("named", "there", "device"), [("0", True, "cuda"), ("0", False, "cpu"), ("", True, "cpu")])
def test_the_device(named: str, there: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert default_device() == device


def test_names_of_models(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLOV2_MODEL", str(tiny_weights))
    models = load_models(("nuclei==1.0", str(tiny_weights), "solov2"), device="cpu")
    assert list(models) == ["nuclei", "tiny", "solov2"]
    assert models.default.name == "nuclei"
    assert [category.name for category in models["solov2"].predictor.categories] == ["disc", "bar"]
    assert [model.licence for model in models.values()] == ["Apache-2.0", "", ""]
    alone = load_models((str(tiny_weights),), device="cpu")
    assert alone["solov2"] is alone["tiny"] is alone.default
    assert "nope" not in alone
    with pytest.raises(WeightsError, match="no such file"):
        load_models(("/nowhere/model.safetensors",), device="cpu")
