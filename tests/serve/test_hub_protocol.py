"""PaddleHub's protocol, with what its own server answered as the measure."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from solov2.serve.models import Models
from tests.serve.conftest import EXAMPLES, Client, halves, picture_bytes

CLIENT = """
import requests
import json
import cv2
import base64
import numpy as np

def cv2_to_base64(image):
    data = cv2.imencode('.jpg', image)[1]
    return base64.b64encode(data.tostring()).decode('utf8')

def base64_to_cv2(b64str):
    data = base64.b64decode(b64str.encode('utf8'))
    data = np.fromstring(data, np.uint8)
    data = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return data

org_im = cv2.imread(PICTURE)
h, w, c = org_im.shape
data = {'images': [cv2_to_base64(org_im)], 'threshold': 0.5, 'visualization': False}
headers = {"Content-type": "application/json"}
url = "http://127.0.0.1:8866/predict/solov2"
r = requests.post(url=url, headers=headers, data=json.dumps(data))
results = r.json()["results"]
segm = np.fromstring(base64.b64decode(results["segm"]), np.int32).reshape((-1, h, w))
label = np.fromstring(base64.b64decode(results["label"]), np.int64)
score = np.fromstring(base64.b64decode(results["score"]), np.float32)
"""
"""As PaddleHub documents it, for a service of this module."""


class Old:
    """A module of an older day: its functions, with what newer versions dropped."""

    def __init__(self, module: Any, **dropped: Any) -> None:
        self._module = module
        self.__dict__.update(dropped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class OldArray(np.ndarray):
    def tostring(self) -> bytes:
        return self.tobytes()


def old_imencode(*arguments: Any) -> tuple[bool, OldArray]:
    done, data = cv2.imencode(*arguments)
    return done, data.view(OldArray)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def arrays(results: dict[str, str], height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    raw = {name: base64.b64decode(text, validate=True) for name, text in results.items()}
    segm = np.frombuffer(raw["segm"], np.int32).reshape(-1, height, width)
    return segm, np.frombuffer(raw["label"], np.int64), np.frombuffer(raw["score"], np.float32)


def test_the_documented_client(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    def post(url: str, headers: dict[str, str], data: str) -> Any:
        assert url.startswith("http://127.0.0.1:8866/")
        return client.post(url.removeprefix("http://127.0.0.1:8866"), headers=headers, content=data)

    monkeypatch.setattr(requests, "post", post)
    modules = {
        "cv2": Old(cv2, imencode=old_imencode),
        "numpy": Old(np, fromstring=np.frombuffer),
    }
    real_import = __import__
    space: dict[str, Any] = {
        "PICTURE": str(EXAMPLES / "dog.jpg"),
        "__builtins__": {"__import__": lambda name, *rest: modules.get(name) or real_import(name, *rest)},
    }
    exec(CLIENT, space)
    segm, label, score = space["segm"], space["label"], space["score"]
    assert segm.shape == (len(label), 448, 298)
    assert len(label) == len(score) >= 1
    assert label[0] == 16  # a dog
    assert score[0] > 0.5
    assert segm.max() == 1
    assert segm[0].sum() > 20_000


def test_the_same_arrays_as_from_python(client: Client, models: Models, dog: bytes) -> None:
    answer = client.post("/predict/solov2", json={"images": [b64(dog)], "threshold": 0.02})
    segm, label, score = arrays(answer.json()["results"], 448, 298)
    expected = models["solov2"].predictor.predict(EXAMPLES / "dog.jpg", 0.02)
    assert len(expected) > len(models["solov2"].predictor.predict(EXAMPLES / "dog.jpg"))  # also what is hardly believed
    assert (segm == expected.masks).all()
    assert label.tolist() == expected.labels.tolist()
    assert score.tolist() == expected.scores.tolist()


def test_the_envelope_is_paddlehubs_to_the_byte(make_client: Callable[..., Client]) -> None:
    answer = make_client(halves()).post("/predict/halves", json={"images": [b64(picture_bytes(2, 1))]})
    label, score, segm = (b64(np.array(*array).tobytes()) for array in (([0], "<i8"), ([0.9], "<f4"), ([1, 0], "<i4")))
    results = f'{{"label":"{label}","score":"{score}","segm":"{segm}"}}'
    assert answer.status_code == 200
    assert answer.text == f'{{"msg":"","results":{results},"status":"000"}}\n'
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_an_empty_result_has_shapes(make_client: Callable[..., Client]) -> None:
    answer = make_client(halves()).post("/predict/halves", json={"images": [b64(picture_bytes(6, 4))], "threshold": 1})
    segm, label, score = arrays(answer.json()["results"], 4, 6)
    assert (segm.shape, label.shape, score.shape) == ((0, 4, 6), (0,), (0,))


def test_several_pictures_give_a_list(make_client: Callable[..., Client]) -> None:
    pictures = [picture_bytes(6, 4), picture_bytes(1, 1), picture_bytes(7, 300)]
    answer = make_client(halves()).post(
        "/predict/solov2", json={"images": [b64(data) for data in pictures], "threshold": 0}
    )
    assert answer.json()["status"] == "000"
    assert int(answer.headers["content-length"]) == len(answer.content)
    for results, (width, height) in zip(answer.json()["results"], ((6, 4), (1, 1), (7, 300)), strict=True):
        segm, label, score = arrays(results, height, width)
        assert label.tolist() == [0, 1]
        assert score.tolist() == pytest.approx([0.9, 0.4])
        assert segm[0, :, : width // 2].all()
        assert segm.sum() == height * width


def test_large_masks_are_sent_piece_by_piece(make_client: Callable[..., Client]) -> None:
    # more than one piece a mask, and sizes that three does not divide
    answer = make_client(halves()).post(
        "/predict/halves", json={"images": [b64(picture_bytes(701, 503))], "threshold": 0}
    )
    segm, _, _ = arrays(answer.json()["results"], 503, 701)
    assert segm.sum(axis=(1, 2)).tolist() == [350 * 503, 351 * 503]
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_an_unknown_module(client: Client) -> None:
    answer = client.post("/predict/nope", json={"images": []})
    assert (answer.status_code, answer.json()) == (
        200,
        {"msg": "Module nope is not available.", "results": "", "status": "111"},
    )


@pytest.mark.parametrize("name", ["a%0Ab", "", "%20", "a/b", "solov2/", "%F0%9F%90%95"])
def test_odd_names_of_modules(client: Client, name: str) -> None:
    answer = client.post(f"/predict/{name}", json={"images": []})
    assert (answer.status_code, answer.json()["status"]) == (200, "111")


@pytest.mark.parametrize(
    ("content", "media"),
    [
        (b"null", "application/json"),
        (b"[1]", "application/json"),
        (b'"text"', "application/json"),
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"images": []}', "text/plain"),
        (b"images=x", "application/x-www-form-urlencoded"),
        (b"[" * 9000, "application/json"),
        (b"[" * 900_000, "application/json"),
        (b'{"images": [' + b"1," * 100_000 + b"1]}", "application/json"),
        (b'{"threshold": NaN}', "application/json"),
        (b'{"threshold": ' + b"9" * 10_000 + b"}", "application/json"),
    ],
)
def test_no_json_object(client: Client, content: bytes, media: str) -> None:
    answer = client.post("/predict/solov2", content=content, headers={"Content-Type": media})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["results"], body["status"]) == ("", "112")
    assert body["msg"].startswith("This usage is out of date")


GOOD = b64(picture_bytes())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "images is missing"),
        ({"images": []}, "images is []"),
        ({"images": None}, "images is None"),
        ({"images": GOOD}, "expected a list"),
        ({"images": {"0": GOOD}}, "expected a list"),
        ({"images": [GOOD, 7]}, "images[1] is 7"),
        ({"images": [None]}, "images[0] is None"),
        ({"images": [GOOD, "%%%"]}, "images[1]: no base64"),
        ({"images": ["é"]}, "images[0]: no base64 (not ASCII)"),
        ({"images": [""]}, "has no bytes"),
        ({"images": [b64(b"hello")]}, "not a picture"),
        ({"images": [GOOD] * 500}, "images has 500 pictures; at most 16"),
        ({"images": [GOOD], "threshold": "0.5"}, "threshold is '0.5'"),
        ({"images": [GOOD], "threshold": True}, "threshold is True"),
        ({"images": [GOOD], "threshold": 1.01}, "threshold is 1.01"),
        ({"images": [GOOD], "threshold": -1e400}, None),
        ({"images": [GOOD], "threshold": [0.5]}, "threshold is [0.5]"),
        ({"images": [GOOD], "visualization": "yes"}, "visualization is 'yes'"),
        ({"images": [GOOD], "visualization": True}, "keeps no pictures"),
        ({"images": [GOOD], "save_dir": 7}, "save_dir is 7"),
        ({"images": [GOOD], "foo": 1}, "unknown keyword 'foo'"),
        ({"images": [GOOD], "use_gpu": True}, "unknown keyword 'use_gpu'"),
    ],
)
def test_bad_input(client: Client, values: dict[str, Any], said: str | None) -> None:
    answer = client.post(
        "/predict/solov2", content=json.dumps(values), headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert answer.status_code == 200
    body = answer.json()
    assert (body["results"], body["status"]) == ("", "112" if said is None else "101")
    assert (said or "Infinity") in body["msg"]
    assert "\n" not in body["msg"]


def test_base64_may_have_lines_and_a_data_address(make_client: Callable[..., Client]) -> None:
    service = make_client(halves())
    lines = base64.encodebytes(picture_bytes()).decode()
    for text in (lines, f"data:image/png;base64,{GOOD}"):
        assert service.post("/predict/halves", json={"images": [text]}).json()["status"] == "000"


def test_overlays_stay_below_the_operators_folder(make_client: Callable[..., Client], tmp_path: Path) -> None:
    root = tmp_path / "overlays"
    root.mkdir()
    (root / "away").symlink_to(tmp_path)
    service = make_client(halves(), save_dir=root)
    asked = {"images": [GOOD, GOOD], "visualization": True}
    for wish in (
        "../x",
        "/tmp/x",
        "a/../../x",
        "..\\x",
        "C:\\x",
        "~/x",
        "away",
        "away/x",
        "a\0b",
        "a/b/c/d/e",
        "x" * 200,
    ):
        body = service.post("/predict/halves", json={**asked, "save_dir": wish}).json()
        assert body["status"] == "101"
        assert "save_dir is" in body["msg"]
    assert [path.name for path in tmp_path.rglob("*.png")] == []
    for wish, folder in (({}, root), ({"save_dir": "solov2_result"}, root / "solov2_result")):
        assert service.post("/predict/halves", json={**asked, **wish}).json()["status"] == "000"
        pictures = list(folder.glob("*.png"))
        assert len(pictures) == 2
        assert cv2.imread(str(pictures[0])).shape == (4, 6, 3)
    assert len(list(tmp_path.rglob("*.png"))) == 4


@pytest.mark.parametrize("name", ["halves", "halves==1.2.0", "output/halves.safetensors"])
def test_the_operators_defaults(make_client: Callable[..., Client], name: str) -> None:
    service = make_client(halves(), defaults={name: {"threshold": 0.0}})
    for values, count in (({}, 2), ({"threshold": 0.5}, 1)):
        results = service.post("/predict/halves", json={"images": [GOOD], **values}).json()["results"]
        assert len(base64.b64decode(results["score"])) == 4 * count


def test_masks_beyond_the_limit(make_client: Callable[..., Client]) -> None:
    service = make_client(halves(), answer_bytes=150)
    for threshold, status in ((0.5, "000"), (0, "101")):
        body = service.post("/predict/halves", json={"images": [GOOD], "threshold": threshold}).json()
        assert body["status"] == status
    assert "the masks have 192 bytes, at most 150" in body["msg"]


def test_the_page_of_gradio_is_ours(client: Client) -> None:
    answer = client.get("/gradio/solov2")
    assert (answer.status_code, answer.headers["location"]) == (307, "/")
