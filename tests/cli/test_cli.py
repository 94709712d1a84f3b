"""The command line, run in this process."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import solov2
from solov2.cli import config as config_command
from solov2.cli import main
from solov2.cli.predict import find_pictures
from solov2.errors import ImageError
from solov2.formats import decode_rle

Save = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

RECIPE = """
_BASE_: [configs/nano.yml]
num_classes: 2
TestReader:
  sample_transforms:
    - Decode: {}
    - Resize: {target_size: [64, 96]}
    - NormalizeImage: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], is_scale: true}
    - Permute: {}
EvalReader:
  sample_transforms:
    - Decode: {}
    - Resize: {target_size: [64, 96]}
    - NormalizeImage: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], is_scale: true}
    - Permute: {}
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: None) -> None:
    """Relative outputs go to the test's folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yml"
    path.write_text(RECIPE)
    return path


def check_one_error_line(capsys: Capture, message: str) -> None:
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("solov2: error: ")
    assert message in line
    assert "Traceback" not in out + err


def predict(weights: Path, *words: str | Path) -> int:
    return main(["predict", "-m", str(weights), "--device", "cpu", *map(str, words)])


def test_pictures_one_of_them_bad(tiny_weights: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    first, last = save("a.png", seed=1), save("c.png", 30, 44, seed=2)
    bad = tmp_path / "b.png"
    bad.write_text("no picture")
    assert predict(tiny_weights, first, bad, last, "-o", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    assert err == (f"solov2: error: {bad}: not a picture of a known format; expected JPEG, PNG, BMP, TIFF or WebP\n")
    assert f"{first}  56x40  " in out
    assert f"{last}  44x30  " in out
    assert "class" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    with Image.open(tmp_path / "out" / "c.png") as overlay:
        assert overlay.size == (44, 30)


def test_folders_and_patterns(tiny_weights: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    save("in/a.png")
    save("in/b.JPG")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    assert predict(tiny_weights, tmp_path / "in", str(tmp_path / "in" / "*.png"), "-o", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("56x40") == 2  # a picture that is named twice is predicted once
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.JPG"]


def test_json_holds_the_masks(tiny_weights: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    paths = [save("a.png", seed=1), save("b.png", 30, 44, seed=2)]
    json_path = tmp_path / "new" / "found.json"
    assert predict(tiny_weights, *paths, "--json", json_path, "--threshold", "0.1") == 0
    records = json.loads(json_path.read_text())
    assert f"{len(records)} instances written to {json_path}" in capsys.readouterr().out
    predictor = solov2.load(tiny_weights, device="cpu")
    for number, path in enumerate(paths, start=1):
        found = predictor.predict(path, 0.1)
        assert len(found) > 0
        mine = [record for record in records if record["file_name"] == str(path)]
        assert {record["image_id"] for record in mine} == {number}
        assert [record["category_id"] for record in mine] == found.category_ids.tolist()
        np.testing.assert_allclose([record["score"] for record in mine], found.scores, rtol=1e-6)
        np.testing.assert_array_equal([decode_rle(record["segmentation"]) for record in mine], found.masks)


def test_json_without_an_instance(tiny_weights: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    assert predict(tiny_weights, save(), "--json", tmp_path / "a.json", "--threshold", "1") == 0
    assert json.loads((tmp_path / "a.json").read_text()) == []
    assert "0 instances" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "three.txt"], "three.txt: cannot be written (three.txt is a file, not a folder); make room, or choose"),
        (["-o", "three.txt/deep"], "three.txt is a file, not a folder); make room"),
        (["--json", "three.txt/found.json"], "three.txt is a file, not a folder); make room, or choose another place"),
        (["--json", "folder"], "folder: cannot be written (it is a folder); make room, or choose another place"),
    ],
)
def test_places_that_cannot_be_written(
    save: Save, tmp_path: Path, capsys: Capture, words: list[str], message: str
) -> None:
    """Told before the model is loaded, and nothing is made."""
    picture = save()
    (tmp_path / "three.txt").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["predict", str(picture), "-m", "never_looked_for", *words]) == 2
    check_one_error_line(capsys, message)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_is_full_at_the_end(
    tiny_weights: Path, save: Save, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / ".found.json.abc"))

    monkeypatch.setattr("solov2.formats.write_json", full)
    assert predict(tiny_weights, save(), "--json", tmp_path / "found.json") == 2
    check_one_error_line(capsys, f"{tmp_path / 'found.json'}: cannot be written (No space left on device); make room")


def test_infer_looks_at_its_folder_first(recipe: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "three.txt").touch()
    words = ["infer", "-c", str(recipe), "-w", "never_looked_for", "--infer_img", str(save())]
    assert main([*words, "--output_dir", "three.txt"]) == 2
    check_one_error_line(capsys, "three.txt: cannot be written (three.txt is a file, not a folder)")


def test_an_overlay_never_replaces_an_input(tiny_weights: Path, save: Save, tmp_path: Path) -> None:
    first, second = save("a.png", seed=1), save("a_2.png", seed=2)
    before = first.read_bytes(), second.read_bytes()
    assert predict(tiny_weights, first, second, "-o", tmp_path) == 0
    assert (first.read_bytes(), second.read_bytes()) == before
    assert {path.name for path in tmp_path.glob("*.png")} == {"a.png", "a_2.png", "a_overlay.png", "a_2_overlay.png"}


def test_pictures_of_one_name_get_an_overlay_each(tiny_weights: Path, save: Save, tmp_path: Path) -> None:
    assert predict(tiny_weights, save("x/a.png", seed=1), save("y/a.png", seed=2), save("z/a.bmp", seed=3)) == 0
    assert sorted(path.name for path in (tmp_path / "solov2_result").iterdir()) == ["a.png", "a_2.png", "a_3.png"]


@pytest.mark.parametrize("threshold", ["-0.1", "1.5", "nan"])
def test_threshold_out_of_range(tiny_weights: Path, save: Save, capsys: Capture, threshold: str) -> None:
    assert predict(tiny_weights, save(), f"--threshold={threshold}") == 2
    check_one_error_line(capsys, f"--threshold is {float(threshold)}; expected a score in 0..1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["picture.png", "-m", "nothing_like_it"], "'nothing_like_it' is neither a file nor the name of a model"),
        (["picture.png", "-m", "nanodet_plus_m"], "holds a backbone to start training from, not a whole model"),
        (["picture.png", "-m", "picture.png"], "not a weights file; expected"),
        (["nothing/*.png"], "nothing/*.png: no file matches this pattern"),
        (["empty"], "empty: holds no picture; expected files ending in .bmp, .gif"),
    ],
)
def test_wrong_input_of_predict(save: Save, tmp_path: Path, capsys: Capture, words: list[str], message: str) -> None:
    save("picture.png")
    (tmp_path / "empty").mkdir()
    assert main(["predict", *words, "--device", "cpu"]) == 2
    check_one_error_line(capsys, message)


def test_unknown_device(tiny_weights: Path, save: Save, capsys: Capture) -> None:
    assert main(["predict", str(save()), "-m", str(tiny_weights), "--device", "abacus"]) == 2
    check_one_error_line(capsys, "device 'abacus' cannot be used")


def test_a_missing_picture_is_reported_with_the_others(tiny_weights: Path, save: Save, capsys: Capture) -> None:
    assert predict(tiny_weights, "missing.png", save()) == 1
    check_one_error_line(capsys, "missing.png: no such file; give the path of a picture")


def test_find_pictures(save: Save, tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "deep/c.webp", "odd[1].png"):
        save(name)
    assert find_pictures(["b.png", "./b.png", "a.jpg"]) == ([Path("b.png"), Path("a.jpg")], [])
    assert find_pictures(["."]) == ([Path("a.jpg"), Path("b.png"), Path("odd[1].png")], [])
    assert find_pictures(["**/*.webp"]) == ([Path("deep/c.webp")], [])
    assert find_pictures(["odd[1].png"]) == ([Path("odd[1].png")], [])  # a file of this name wins over the pattern
    assert find_pictures([str(tmp_path / "?.png")]) == ([tmp_path / "b.png"], [])
    assert find_pictures(["*.tif", "a.jpg"]) == ([Path("a.jpg")], ["*.tif: no file matches this pattern"])
    with pytest.raises(ImageError, match="no file matches"):
        find_pictures(["*.tif"])


@pytest.mark.parametrize(("flag", "written"), [("False", False), ("true", True), ("no", False), (None, False)])
def test_infer_takes_paddledetections_flags(
    tiny_weights: Path, recipe: Path, save: Save, tmp_path: Path, flag: str | None, written: bool
) -> None:
    out = tmp_path / "out"
    words = ["infer", "-c", str(recipe), "-w", str(tiny_weights), "--device", "cpu", f"--infer_img={save()}"]
    words += [f"--output_dir={out}", "--draw_threshold", "0.1", "-o", "MaskMatrixNMS.post_nms_top_n=3"]
    assert main([*words, *([] if flag is None else ["--save_results", flag])]) == 0
    assert (out / "picture.png").is_file()
    assert (out / "segm.json").is_file() is written
    if written:
        assert 0 < len(json.loads((out / "segm.json").read_text())) <= 3


def test_infer_a_folder(tiny_weights: Path, recipe: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    save("in/a.png")
    words = ["infer", "-c", str(recipe), "-w", str(tiny_weights), "--device", "cpu", "--infer_dir", "in"]
    assert main(words) == 0
    assert (tmp_path / "output" / "a.png").is_file()
    assert "in/a.png  56x40" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a picture with --infer_img or a folder with --infer_dir"),
        (["--infer_img", "a.png", "--draw_threshold", "2"], "--draw_threshold is 2.0; expected a score in 0..1"),
        (["--infer_img", "a.png", "-w", "nothing_like_it"], "'nothing_like_it' is neither a file"),
        (["--infer_img", "a.png", "-o", "no_such_key=1"], "no_such_key"),
    ],
)
def test_wrong_input_of_infer(recipe: Path, capsys: Capture, words: list[str], message: str) -> None:
    assert main(["infer", "-c", str(recipe), *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("solov2: error: ")
    assert "Traceback" not in out + err


def test_eval(tiny_weights: Path, write_coco: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    square = [4, 4, 20, 4, 20, 20, 4, 20]
    images = [{"id": n, "file_name": f"{n}.png", "height": 24, "width": 32, "kind": "odd"} for n in (1, 2)]
    record = {"id": 1, "image_id": 1, "category_id": 42, "segmentation": [square], "bbox": [4, 4, 16, 16]}
    path = write_coco(images, [{**record, "area": 256, "iscrowd": 0}])
    words = ["eval", "-w", str(tiny_weights), "--data", str(path), "--device", "cpu", "--json", "found.json"]
    assert main([*words, "--matching", "--group-by", "kind", "--classwise"]) == 0
    out = capsys.readouterr().out
    assert "2 pictures, " in out
    assert "mask AP with maxDets 5" in out
    assert "TP/(TP+FP+FN)" in out
    assert "odd" in out
    assert {record["image_id"] for record in json.loads((tmp_path / "found.json").read_text())} <= {1, 2}


def coco_of_two(write_coco: Callable[..., Path]) -> Path:
    square = [4, 4, 20, 4, 20, 20, 4, 20]
    images = [{"id": n, "file_name": f"{n}.png", "height": 24, "width": 32} for n in (1, 2)]
    record = {"id": 1, "image_id": 1, "category_id": 42, "segmentation": [square], "bbox": [4, 4, 16, 16]}
    return write_coco(images, [{**record, "area": 256, "iscrowd": 0}])


def test_results_of_an_evaluation_are_evaluated_again(
    tiny_weights: Path, write_coco: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    data = str(coco_of_two(write_coco))
    words = ["eval", "-w", str(tiny_weights), "--data", data, "--device", "cpu", "--output_eval", "deep/out"]
    assert main([*words, "--classwise"]) == 0
    first = capsys.readouterr().out
    assert (tmp_path / "deep" / "out" / "segm.json").is_file()
    assert "1 curves of precision over recall in deep/out/segm_pr_curve" in first
    with Image.open(tmp_path / "deep" / "out" / "segm_pr_curve" / "bar_precision_recall_curve.jpg") as curve:
        assert curve.size == (480, 400)
    assert "1 classes do not occur in the annotations" in first
    assert main(["eval", "--json_eval", "--output_eval", "deep/out", "--data", data]) == 0
    again = capsys.readouterr().out
    figures = [line for line in again.splitlines() if line.startswith(("AP ", "AP50", "AR small"))]
    assert figures == [line for line in first.splitlines() if line.startswith(("AP ", "AP50", "AR small"))]
    assert main(["eval", "--json_eval", "--output_eval", "nowhere", "--data", data]) == 2
    check_one_error_line(capsys, "expected COCO results and a COCO json")


def test_results_without_annotations(
    tiny_weights: Path, write_coco: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    """As for COCO's test-dev: pictures and classes, nothing to measure against."""
    data = coco_of_two(write_coco)
    content = json.loads(data.read_text())
    del content["annotations"]
    data.write_text(json.dumps(content))
    assert (
        main(["eval", "-w", str(tiny_weights), "--data", str(data), "--device", "cpu", "--save_prediction_only"]) == 0
    )
    assert "results in segm.json" in capsys.readouterr().out
    records = json.loads((tmp_path / "segm.json").read_text())
    assert {record["image_id"] for record in records} <= {1, 2}


def test_boundary_ap(tiny_weights: Path, write_coco: Callable[..., Path], capsys: Capture) -> None:
    pytest.importorskip("faster_coco_eval")
    data = str(coco_of_two(write_coco))
    assert main(["eval", "-w", str(tiny_weights), "--data", data, "--device", "cpu", "--boundary"]) == 0
    assert "boundary AP with maxDets 5" in capsys.readouterr().out


def test_half_precision(tiny_weights: Path, write_coco: Callable[..., Path], tmp_path: Path) -> None:
    data = str(coco_of_two(write_coco))
    for name, more in (("full.json", []), ("half.json", ["--amp"])):
        words = ["eval", "-w", str(tiny_weights), "--data", data, "--device", "cpu", "--json", name]
        assert main([*words, *more]) == 0
    full, half = (json.loads((tmp_path / name).read_text()) for name in ("full.json", "half.json"))
    assert full != half
    best = [max(record["score"] for record in records) for records in (full, half)]
    assert best[1] == pytest.approx(best[0], abs=0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "-c", "nano", "--slim_config", "x.yml"], "--slim_config is not part of this package: models are"),
        (["train", "-c", "nano", "--use_vdl", "true"], "--logger tensorboard"),
        (["eval", "-c", "nano", "--bias"], "--bias is not part of this package"),
        (["eval", "-c", "nano", "--slice_size", "640", "640"], "pictures are predicted whole"),
        (["infer", "-c", "nano", "--save_threshold", "0.3"], "no effect on masks"),
    ],
)
def test_flags_without_a_meaning_are_refused_by_name(capsys: Capture, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_infer_a_list(tiny_weights: Path, recipe: Path, save: Save, tmp_path: Path, capsys: Capture) -> None:
    for name in ("in/a.png", "in/b.png", "in/c.png"):
        save(name)
    (tmp_path / "list.txt").write_text("a.png\n\nc.png\n")
    words = ["infer", "-c", str(recipe), "-w", str(tiny_weights), "--infer_dir", "in", "--device", "cpu"]
    assert main([*words, "--infer_list", "list.txt"]) == 0
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"a.png", "c.png"}
    assert main([*words, "--output_dir", "none", "--visualize", "False", "--save_results", "True"]) == 0
    assert {path.name for path in (tmp_path / "none").iterdir()} == {"segm.json"}
    (tmp_path / "list.txt").write_text("")
    assert main([*words, "--infer_list", "list.txt"]) == 2
    assert "names no picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a recipe (-c), weights (-w), or both"),
        (["--group-by", "kind"], "--group-by needs --matching"),
        (["-w", "x", "-o", "epoch=1"], "-o epoch=1: overrides change a recipe; give one with -c"),
        (["-w", "x"], "'x' is neither a file nor the name of a model"),
    ],
)
def test_wrong_input_of_eval(capsys: Capture, words: list[str], message: str) -> None:
    assert main(["eval", *words]) == 2
    check_one_error_line(capsys, message)


def test_eval_wants_the_json_of_a_folder(tiny_weights: Path, capsys: Capture) -> None:
    assert main(["eval", "-w", str(tiny_weights), "--images", "x", "--device", "cpu"]) == 2
    check_one_error_line(capsys, "--images without --data")


def test_config_list(capsys: Capture) -> None:
    assert main(["config", "list"]) == 0
    assert {"nano", "solov2_nano_nuclei", "solov2_r50_fpn_1x_coco"} <= set(capsys.readouterr().out.split())


def test_config_check(recipe: Path, capsys: Capture) -> None:
    assert main(["config", "check", "-c", str(recipe)]) == 0
    assert capsys.readouterr().out == f"{recipe}: no problem found\n"
    recipe.write_text(RECIPE + "no_such_key: 1\n")
    assert main(["config", "check", "-c", str(recipe)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no_such_key" in err


def test_config_show(recipe: Path, capsys: Capture) -> None:
    assert main(["config", "show", "-c", str(recipe), "-o", "epoch=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (epochs,) = [line for line in lines if line.startswith("epoch ")]
    (classes,) = [line for line in lines if line.startswith("num_classes ")]
    assert epochs.split()[1] == "7"
    assert classes.split()[1] == "2"
    assert "recipe.yml:3" in classes


@pytest.mark.parametrize("action", ["show", "check"])
def test_config_wants_a_recipe(capsys: Capture, action: str) -> None:
    assert main(["config", action]) == 2
    check_one_error_line(capsys, f"solov2 config {action} needs a recipe: -c FILE or -c NAME")


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"solov2 {solov2.__version__}\n"


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ([], ["predict", "train", "eval", "infer", "export", "config", "convert", "zoo", "--version"]),
        (["predict"], ["PICTURE", "--model", "--output", "--threshold", "--json", "--device"]),
        (["train"], ["--config", "--opt", "--data", "--images", "--val", "--val-images", "--resume", "--amp"]),
        (["eval"], ["--weights", "--data", "--classwise", "--matching", "--group-by", "--threshold", "--json"]),
        (["infer"], ["--infer_img", "--infer_dir", "--output_dir", "--draw_threshold", "--save_results"]),
        (["config"], ["show", "check", "list", "--config", "--opt"]),
        (["convert"], ["SRC", "DST", "--config", "--classes", "--half", "--force"]),
        (["zoo"], ["list", "show", "download", "verify", "--json"]),
    ],
)
def test_help(capsys: Capture, words: list[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for flag in flags:
        assert flag in out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing_like_it"],
        ["predict"],
        ["train"],
        ["predict", "a.png", "--threshold", "high"],
        ["infer", "-c", "nano", "--save_results", "maybe"],
        ["config", "guess"],
    ],
)
def test_wrong_words(capsys: Capture, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 0)])
def test_interruptions(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def run(arguments: object) -> int:
        raise error

    err = io.StringIO()
    monkeypatch.setattr(config_command, "run", run)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["config", "list"]) == code
    assert err.getvalue() == ("solov2: interrupted\n" if code else "")


def test_predict_ends_quietly_when_nobody_reads_on(tiny_weights: Path, save: Save) -> None:
    code = "import sys, solov2.cli; sys.exit(solov2.cli.main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "predict", "-m", str(tiny_weights), str(save()), "--device", "cpu"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as head does
        assert process.stderr.read() == ""
    assert process.returncode == 0
