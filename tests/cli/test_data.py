"""solov2 data, run in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from solov2.cli import main

from ..data.records import annotation, picture

Write = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: None) -> None:
    """Relative outputs go to the test's folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sound(write_coco: Write) -> Path:
    return write_coco([picture(1), picture(2)], [annotation(1), annotation(2, image_id=2)])


def test_check_without_defects(sound: Path, capsys: Capture) -> None:
    assert main(["data", "check", "--data", str(sound)]) == 0
    out, _ = capsys.readouterr()
    assert f"{sound}: no defect found" in out
    assert "with recipe nano" in out


def test_check_with_defects(write_coco: Write, capsys: Capture, tmp_path: Path) -> None:
    path = write_coco([picture()], [annotation(1), annotation(9, segmentation=[[1, 2]])])
    assert main(["data", "check", "--data", str(path), "--json", str(tmp_path / "deep" / "report.json")]) == 1
    out, _ = capsys.readouterr()
    assert "annotation 9 (1.png): empty polygon; expected at least three points x y" in out
    data = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert data["problems"][0]["kind"] == "unusable segmentation"


def test_check_looks_at_pictures_on_request(sound: Path, capsys: Capture) -> None:
    (sound.parent / "2.png").unlink()
    assert main(["data", "check", "--data", str(sound)]) == 0
    assert main(["data", "check", "--data", str(sound), "--pictures"]) == 1
    assert "image 2: " in capsys.readouterr().out


def test_check_of_a_recipes_own_data(sound: Path, tmp_path: Path, capsys: Capture) -> None:
    recipe = tmp_path / "mine.yml"
    recipe.write_text(
        f"_BASE_: [nano.yml]\nnum_classes: 2\n"
        f"TrainDataset: {{dataset_dir: {tmp_path}, anno_path: {sound.name}, image_dir: ''}}\n"
    )
    assert main(["data", "check", "-c", str(recipe), "-o", "MaskMatrixNMS.post_nms_top_n=7"]) == 0
    assert "with recipe mine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "--data", "none.json"], "none.json: no such file; expected a COCO json"),
        (["check", "--data", "none.json", "more.json"], "none.json: no such file; expected a COCO json"),
        (["check", "--images", "x"], "a picture folder is given without a COCO json"),
        (["check", "-c", "nanoo"], "no recipe 'nanoo': did you mean nano"),
        (["check", "-o", "epochs=1"], "unknown key"),
        (["show", "--data", "none.json"], "none.json: no such file; expected a COCO json"),
        (["show", "-n", "0"], "-n is 0; expected at least 1 picture"),
        (["show", "--seed", "-1"], "--seed is -1; expected 0 or more"),
    ],
)
def test_wrong_input(words: list[str], message: str, capsys: Capture) -> None:
    assert main(["data", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in out + err


def test_an_action_is_needed(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["data"])
    assert stop.value.code == 2
    assert "ACTION" in capsys.readouterr().err


def test_show(sound: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["data", "show", "--data", str(sound), "-n", "1", "--output", "drawn", "--seed", "4", "--raw"]) == 0
    out, _ = capsys.readouterr()
    first, last = out.splitlines()
    path = first.split()[0]
    assert first.endswith("30x20  1 instance")
    assert last == f"all together: {Path('drawn') / 'sheet.png'}"
    assert sorted(str(file.relative_to(tmp_path)) for file in (tmp_path / "drawn").iterdir()) == [
        path,
        "drawn/sheet.png",
    ]


@pytest.fixture
def second(write_coco: Write) -> Path:
    return write_coco([picture(3, labelled_categories="bar")], [annotation(5, image_id=3)], name="second.json")


def test_check_of_several_files(sound: Path, second: Path, capsys: Capture, tmp_path: Path) -> None:
    assert main(["data", "check", "--data", str(sound), str(second), "--json", "report.json"]) == 0
    out, _ = capsys.readouterr()
    assert "pictures   3, of which 0 without instances" in out
    assert "labelled   1 pictures for some classes only: bar (1)\n" in out
    assert f"put together with {second}" in " ".join(out.split())
    statistics = json.loads((tmp_path / "report.json").read_text())["statistics"]
    assert (statistics["partial"], statistics["known"]) == (1, [["bar", 1]])


def test_show_of_several_files(sound: Path, second: Path, capsys: Capture) -> None:
    words = ["--data", str(sound), str(second), "--images", str(sound.parent), str(second.parent)]
    assert main(["data", "show", *words, "--output", "drawn", "--raw"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("command", [["data", "check"], ["data", "show"], ["train", "-c", "nano", "--device", "cpu"]])
def test_a_picture_in_two_files(command: list[str], sound: Path, capsys: Capture) -> None:
    assert main([*command, "--data", str(sound), str(sound)]) == 2
    out, err = capsys.readouterr()
    assert f"{sound}: image 1 (1.png, 1 annotation) is the same picture as {sound}: image 1" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("command", [["data", "check"], ["data", "show"], ["train", "-c", "nano", "--device", "cpu"]])
def test_folders_that_do_not_fit(command: list[str], sound: Path, second: Path, capsys: Capture) -> None:
    assert main([*command, "--data", str(sound), str(second), "--images", "a", "b", "c"]) == 2
    assert "2 annotation files and 3 picture folders" in capsys.readouterr().err


def test_results_are_measured_against_one_file(sound: Path, second: Path, capsys: Capture, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yml"
    recipe.write_text(f"_BASE_: [nano.yml]\nEvalDataset: {{anno_path: [{sound}, {second}]}}\n")
    assert main(["eval", "-c", str(recipe), "--json_eval", "--json", "x.json"]) == 2
    assert "measures against one annotation file, and the recipe names 2" in capsys.readouterr().err


def test_show_does_not_draw_among_the_pictures(sound: Path, capsys: Capture) -> None:
    assert main(["data", "show", "--data", str(sound), "--output", str(sound.parent)]) == 2
    assert "give another folder to draw into" in capsys.readouterr().err
