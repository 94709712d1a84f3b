"""solov2 zoo, run in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from solov2.cli import main
from solov2.errors import WeightsError
from solov2.weights.cache import download_place, model_place, record_place, remember, verify
from solov2.weights.zoo import ZOO, zoo_entry

Capture = pytest.CaptureFixture[str]

R50 = "solov2_r50_fpn_1x_coco"
ENHANCE = "solov2_r50_enhance_coco"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: None) -> Path:
    """A cache folder of its own."""
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the conversion: the names that were asked for; the enhanced model cannot be had."""
    names: list[str] = []

    def open_zoo(name: str) -> Path:
        names.append(name)
        if name == ENHANCE:
            raise WeightsError(f"{name}: no connection to the server")
        return put(model_place(name), b"weights")

    module = ModuleType("solov2.opening")
    module.open_zoo = open_zoo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "solov2.opening", module)
    return names


def put(path: Path, body: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def printed(capsys: Capture, *words: str, code: int = 0) -> str:
    assert main(["zoo", *words]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def one_error_line(capsys: Capture, *words: str, code: int = 2) -> str:
    assert main(["zoo", *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("solov2: error: ")
    return line


# ----------------------------------------------------------------------------------------------- list


@pytest.mark.parametrize("words", [[], ["list"]])
def test_a_pipe_gets_a_line_each(capsys: Capture, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # of the terminal, which a pipe does not have
    header, *lines = printed(capsys, *words).splitlines()
    assert header.split() == ["name", "source", "published", "AP", "split", "M", "params", "GMACs", "licence", "here"]
    assert [line.split()[0] for line in lines] == [entry.name for entry in ZOO]
    assert "\t" not in "".join(lines)
    (line,) = [line for line in lines if line.startswith(ENHANCE)]
    assert line.split() == [ENHANCE, "PaddleDetection", "39.0", "val2017", "33.9", "97.3", "Apache-2.0", "no"]
    column = header.index("licence")
    assert {line[column:].split()[0] for line in lines} == {"Apache-2.0", "non-commercial"}


def test_a_wide_terminal_gets_lines_too(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert len(printed(capsys).splitlines()) == len(ZOO) + 1


@pytest.mark.parametrize("columns", [100, 60, 20])
def test_a_narrow_terminal_gets_paragraphs(capsys: Capture, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    out = printed(capsys)
    assert max(len(line) for line in out.splitlines()) <= max(columns, 40)
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [entry.name for entry in ZOO]
    text = " ".join(out.split())
    assert (
        "solov2_r50_enhance_coco PaddleDetection; published AP 39.0, split val2017; 33.9 M parameters, 97.3 GMACs; "
        "Apache-2.0; not here"
    ) in text


def test_what_is_here(capsys: Capture) -> None:
    put(download_place(zoo_entry(R50).url), b"as published")
    put(model_place(ENHANCE), b"converted")
    cut = put(download_place(zoo_entry("adelaidet_R50_3x").url), b"as published")
    remember(cut, verify(cut))
    cut.write_bytes(b"as publ")
    states = {line.split()[0]: line.split()[-1] for line in printed(capsys).splitlines()[1:]}
    assert states.pop(R50) == "downloaded"
    assert states.pop("adelaidet_R50_3x") == "damaged"
    assert states.pop(ENHANCE) == "ready"
    assert (states.pop("solov2_nano_coco"), states.pop("solov2_nano_nuclei")) == ("shipped", "shipped")
    assert set(states.values()) == {"no"}


def test_json_of_the_list(capsys: Capture, home: Path) -> None:
    records = json.loads(printed(capsys, "--json"))
    assert [record["name"] for record in records] == [entry.name for entry in ZOO]
    (record,) = [record for record in records if record["name"] == ENHANCE]
    assert record == {
        "name": ENHANCE,
        "source": "PaddleDetection",
        "licence": "Apache-2.0",
        "url": zoo_entry(ENHANCE).url,
        "ap": 39.0,
        "split": "val2017",
        "parameters": 33_880_939,
        "gmacs": 97.3,
        "aliases": [],
        "recipe": ENHANCE,
        "test_size": "864x512",
        "here": "no",
        "file": str(home / "downloads" / "paddledet.bj.bcebos.com" / "models" / f"{ENHANCE}.pdparams"),
        "model": str(home / "models" / f"{ENHANCE}.safetensors"),
    }


# ----------------------------------------------------------------------------------------------- show


def test_show(capsys: Capture) -> None:
    first, second = printed(capsys, "show", "adelaidet_R50_3x", "nuclei", "adelaidet_R50_3x").split("\n\n")
    entry = zoo_entry("adelaidet_R50_3x")
    rows = dict(line.split(maxsplit=1) for line in first.splitlines() if not line.startswith("mask AP"))
    assert rows["url"] == entry.url
    assert rows["file"] == str(download_place(entry.url))
    assert rows["licence"] == entry.licence
    assert rows["split"] == "not stated"
    assert rows["parameters"] == "46,592,912"
    assert "37.6, published, not measured here" in first
    assert "aliases     nuclei" in second
    assert "url" not in second


def test_json_of_one(capsys: Capture) -> None:
    (record,) = json.loads(printed(capsys, "show", "nuclei", "--json"))
    assert (record["name"], record["here"], record["file"], record["model"]) == (
        "solov2_nano_nuclei",
        "shipped",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show"], "solov2 zoo show needs the name of a model; solov2 zoo lists them"),
        (["download"], "solov2 zoo download needs the name of a model"),
        (["list", R50], f"solov2 zoo list takes no name, got {R50}"),
        (["verify", R50], f"solov2 zoo verify takes no name, got {R50}"),
        (["show", "abacus"], "'abacus' is not in the zoo"),
        (["download", R50, "abacus"], "'abacus' is not in the zoo"),
        (["show", "SOLOv2_R50_3x"], "solov2_r50_fpn_8gpu_3x (authors (WXinlong/SOLO)), adelaidet_R50_3x (AdelaiDet)"),
    ],
)
def test_wrong_words(capsys: Capture, opened: list[str], words: list[str], message: str) -> None:
    assert message in one_error_line(capsys, *words)
    assert opened == []  # all names are looked up before anything is downloaded


# --------------------------------------------------------------------------------- download and verify


def test_download(capsys: Capture, opened: list[str]) -> None:
    assert printed(capsys, "download", R50) == f"{R50}: {model_place(R50)}\n"
    assert opened == [R50]


def test_one_that_fails_does_not_stop_the_others(capsys: Capture, opened: list[str]) -> None:
    assert main(["zoo", "download", ENHANCE, R50, "nuclei"]) == 1
    out, err = capsys.readouterr()
    assert err == f"solov2: error: {ENHANCE}: no connection to the server\n"
    first, second = out.splitlines()
    assert first == f"{R50}: {model_place(R50)}"
    assert second.endswith("solov2_nano_nuclei.safetensors")
    assert opened == [ENHANCE, R50]  # the shipped one is not converted


def test_nothing_could_be_downloaded(capsys: Capture, opened: list[str]) -> None:
    assert "no connection" in one_error_line(capsys, "download", ENHANCE, code=2)


def test_json_of_downloads(capsys: Capture, opened: list[str]) -> None:
    assert json.loads(printed(capsys, "download", R50, "--json")) == [{"name": R50, "model": str(model_place(R50))}]


def test_verify(capsys: Capture, home: Path) -> None:
    assert printed(capsys, "verify") == f"nothing downloaded in {home}\n"
    place = put(download_place(zoo_entry(R50).url), b"first")
    assert printed(capsys, "verify").startswith(f"{place}: not used yet, SHA-256 a7937b64b8ca")
    assert not record_place(place).exists()  # what was never used may be the wrong file
    remember(place, verify(place))
    assert printed(capsys, "verify").startswith(f"{place}: unchanged, SHA-256 a7937b64b8ca")
    put(place, b"other")
    other = put(download_place(zoo_entry(ENHANCE).url), b"fine")
    assert main(["zoo", "verify"]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"solov2: error: {place}: the file was changed: its SHA-256 is ")
    assert len(err.splitlines()) == 1
    assert out.startswith(f"{other}: not used yet")


def test_json_of_verify(capsys: Capture) -> None:
    assert json.loads(printed(capsys, "verify", "--json")) == []
    place = put(download_place(zoo_entry(R50).url), b"first")
    record_place(place).write_text("{")
    assert main(["zoo", "verify", "--json"]) == 1
    out, err = capsys.readouterr()
    (record,) = json.loads(out)
    assert (record["file"], record["state"]) == (str(place), "refused")
    assert "damaged" in record["detail"]
    assert "damaged" in err
