"""PaddleHub's commands: solov2 run and solov2 install in this process, and all that its page prints through a shell."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import solov2
from solov2 import hub
from solov2.cli import main
from solov2.predict import MODEL_VARIABLE
from tests.conftest import TINY_CATEGORIES

Save = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migrating_from_paddlehub.md").read_text(encoding="utf-8")
LOW = "0.1"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: None, tiny_weights: Path) -> None:
    """Relative outputs go to the test's folder; ``solov2`` is the tiny model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_weights))


def run(*words: str | Path) -> int:
    return main(["run", *map(str, words)])


def check_one_error_line(capsys: Capture, message: str) -> None:
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("solov2: error: ")]
    assert message in line
    assert "Traceback" not in err


def printed_result(text: str) -> hub.Result:
    """The dict as PaddleHub prints it; NumPy leaves most of large masks out, so that only their shape is read."""
    assert text.startswith("{'segm': array(")
    label, score = (
        np.array([float(word) for word in re.findall(r"[\d.e-]+", values)])
        for values in re.findall(r"'(?:label|score)': array\(\[(.*?)\]", text)
    )
    return hub.Result(segm=np.zeros(0, np.int32), label=label.astype(np.int64), score=score.astype(np.float32))


def test_one_picture(tiny_weights: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    picture = save()
    assert run("solov2", "--input_path", picture, "--threshold", LOW) == 0
    first, rest = capsys.readouterr().out.split("\n", 1)
    found = solov2.load(tiny_weights, device="cpu").predict(picture, float(LOW))
    assert len(found) > 1
    expected = ", ".join(f"{name} {score:.3f}" for name, score in zip(found.class_names, found.scores, strict=True))
    assert first == f"{picture}  56x40  {len(found)} instances: {expected}"
    result = printed_result(rest)
    np.testing.assert_array_equal(result["label"], found.labels)
    np.testing.assert_allclose(result["score"], found.scores, rtol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]  # no overlay


def test_nothing_found(save: Save, capsys: Capture) -> None:
    picture = save()
    assert run("solov2", "--input_path", picture, "--threshold", "1") == 0
    first, rest = capsys.readouterr().out.split("\n", 1)
    assert first == f"{picture}  56x40  0 instances"
    assert "shape=(0, 40, 56), dtype=int32)" in rest


@pytest.mark.parametrize("words", [["--visualization", "True"], ["--visualization"], ["--visualization", "1"]])
def test_overlays(save: Save, capsys: Capture, words: list[str]) -> None:
    assert run("solov2", "--input_path", save(), *words, "--threshold", LOW) == 0
    (overlay,) = Path("solov2_result").iterdir()
    assert f"overlay: {overlay}\n" in capsys.readouterr().out


def test_the_word_false_means_false(save: Save, tmp_path: Path) -> None:
    words = ["--visualization", "False", "--use_gpu", "False"]
    assert run("solov2", "--input_path", save(), *words, "--threshold", "1") == 0
    assert not (tmp_path / "solov2_result").exists()


def test_flags_of_other_modules(save: Save, tmp_path: Path) -> None:
    """Sibling modules say --output_dir, --score_thresh and --batch_size."""
    words = ["--output_dir", "out", "--score_thresh", LOW, "--batch_size", "1", "--use_device", "cpu"]
    assert run("solov2", "--input_path", save(), "--visualization", "True", *words) == 0
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_file_or_a_folder_with_weights(tiny_weights: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine").mkdir()
    shutil.copy(tiny_weights, tmp_path / "mine" / "best_model.safetensors")
    picture = save()
    outputs = []
    for name in ("solov2", tiny_weights, "mine", "mine/best_model"):
        assert run(name, "--input_path", picture, "--threshold", LOW) == 0
        outputs.append(capsys.readouterr().out)
    assert set(outputs) == {outputs[0]}
    assert TINY_CATEGORIES[0][1] in outputs[0]


def test_a_checkout_is_not_taken_for_the_model(save: Save, tmp_path: Path) -> None:
    (tmp_path / "solov2").mkdir()
    assert run("solov2", "--input_path", save(), "--threshold", "1") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["solov2", "--input_path", "no.jpg"], "no.jpg: no such file; give the path of a picture"),
        (["solov2", "--input_path", "."], "a folder; expected the path of a picture"),
        (["solov2", "--input_path", "a.png", "--threshold", "2"], "--threshold is 2.0; expected a score in 0..1"),
        (["solov2", "--input_path", "a.png", "--threshold", "nan"], "--threshold is nan; expected a score in 0..1"),
        (["openpose_hands_estimation", "--input_path", "a.png"], "is neither a file nor the name of a model"),
        (
            ["solov2", "--input_path", "a.png", "--visualization", "1", "--save_dir", "a.png"],
            "a.png: cannot be written (a.png is a file, not a folder)",
        ),
    ],
)
def test_wrong_words(save: Save, tmp_path: Path, capsys: Capture, words: list[str], message: str) -> None:
    save("a.png")
    assert run(*words) == 2
    check_one_error_line(capsys, message)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["solov2"], "the following arguments are required: --input_path"),
        (["solov2", "--input_path", "a.png", "--use_gpu", "perhaps"], "'perhaps' is neither true nor false"),
        (["solov2", "--input_path", "a.png", "--use_device", "npu"], "invalid choice: 'npu'"),
    ],
)
def test_words_that_are_no_flags(capsys: Capture, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_without_a_gpu_there_is_one_warning(
    save: Save, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solov2.predict.torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("solov2.predict.torch.backends.mps.is_available", lambda: False)
    assert run("solov2", "--input_path", save(), "--use_gpu", "True", "--threshold", "1") == 0
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


# ---------------------------------------------------------------------------------------------- install


def test_install(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert main(["install", "solov2==1.2.0"]) == 0
    assert capsys.readouterr().out == f"solov2==1.2.0: {tiny_weights}\n"
    monkeypatch.delenv(MODEL_VARIABLE)
    assert main(["install", "solov2", "nuclei"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"solov2: .*/solov2_nano_coco\.safetensors", first)
    assert re.fullmatch(r"nuclei: .*/solov2_nano_nuclei\.safetensors", second)


def test_install_downloads(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("solov2.opening.open_zoo", lambda name: Path("models") / name)
    assert main(["install", "solov2_r50_fpn_1x_coco"]) == 0
    assert capsys.readouterr().out == "solov2_r50_fpn_1x_coco: models/solov2_r50_fpn_1x_coco\n"


def test_install_what_is_not_there(capsys: Capture) -> None:
    assert main(["install", "yolov3_darknet53_coco2017"]) == 2
    check_one_error_line(capsys, "'yolov3_darknet53_coco2017' is not in the zoo")


# ------------------------------------------------------------------------------------------ in a shell


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs lines in bash after the alias of the migration page; ``solov2`` is found as an installed command is."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    assert "alias hub=solov2  " in PAGE
    command = tmp_path / "bin" / "solov2"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m solov2 "$@"\n')
    command.chmod(0o755)
    own = {
        "PATH": os.pathsep.join([str(command.parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT / "src"),
        "SOLOV2_HOME": str(tmp_path / "home"),
    }

    def _shell(lines: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", f"shopt -s expand_aliases\nalias hub=solov2\n{lines}"],
            env=os.environ | own, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    return _shell


@pytest.mark.slow
def test_with_the_alias_the_commands_run_as_printed(
    shell: Callable[[str], subprocess.CompletedProcess[str]], save: Save, tmp_path: Path
) -> None:
    picture = save()
    done = shell(f"""
        hub install solov2
        hub run solov2 --input_path "{picture}" --visualization True
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("{'segm': array(") == 1
    assert len(list((tmp_path / "solov2_result").glob("*.png"))) == 1


@pytest.mark.slow
def test_with_the_alias_the_service_answers_the_pages_client(
    shell: Callable[[str], subprocess.CompletedProcess[str]], save: Save, tiny_weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("uvicorn")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    (program,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "requests" in block]
    program = program.replace("8866", str(port)).replace("/PATH/TO/IMAGE", str(save("picture.png")))
    program = program.replace("[picture]}", f'[picture], "threshold": {LOW}}}')
    client = tmp_path / "client.py"
    client.write_text(f"{program}\nnp.savez('answer.npz', segm=segm, label=label, score=score)\n")
    done = shell(f"""
        hub serving start -m solov2 -p {port} 2>service.log &
        for second in $(seq 100); do
            grep -q "ready: " service.log || ! kill -0 $! && break
            sleep 1
        done
        "{sys.executable}" client.py && code=0 || code=$?
        hub serving stop -p {port}
        wait
        exit $code
    """)
    assert done.returncode == 0, done.stderr + (tmp_path / "service.log").read_text()
    sent = cv2.imdecode(cv2.imencode(".jpg", cv2.imread(str(tmp_path / "picture.png")))[1], cv2.IMREAD_COLOR)
    expected = hub.Module(name="solov2").predict(image=sent, threshold=float(LOW))
    assert len(expected["label"]) > 1
    with np.load(tmp_path / "answer.npz") as answer:
        for key in ("segm", "label", "score"):
            assert answer[key].dtype == expected[key].dtype  # type: ignore[literal-required]
            np.testing.assert_array_equal(answer[key], expected[key])  # type: ignore[literal-required]
