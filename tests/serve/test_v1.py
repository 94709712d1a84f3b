"""The service's own protocol."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from solov2.formats import decode_rle
from solov2.serve.models import Models
from solov2.serve.polygons import outlines
from tests.serve.conftest import EXAMPLES, Client, halves, picture_bytes

JPEG = {"Content-Type": "image/jpeg"}


def ways(data: bytes) -> dict[str, dict[str, Any]]:
    return {
        "multipart": {"files": {"image": ("dog.jpg", data, "image/jpeg")}},
        "raw": {"content": data, "headers": JPEG},
        "bytes": {"content": data, "headers": {"Content-Type": "application/octet-stream"}},
        "json": {"json": {"image": base64.b64encode(data).decode()}},
    }


@pytest.mark.parametrize("way", ["multipart", "raw", "bytes", "json"])
def test_a_picture_in_every_way(client: Client, models: Models, dog: bytes, way: str) -> None:
    answer = client.post("/v1/predict", **ways(dog)[way])
    assert answer.status_code == 200
    body = answer.json()
    expected = models["solov2"].predictor.predict(EXAMPLES / "dog.jpg")
    assert list(body) == ["model", "image", "threshold", "instances", "timing"]
    least = models["solov2"].predictor.score_threshold
    assert (body["model"], body["image"], body["threshold"]) == ("solov2", {"width": 298, "height": 448}, least)
    assert [each["category"] for each in body["instances"]] == list(expected.class_names) == ["dog", "teddy bear"]
    assert [each["category_id"] for each in body["instances"]] == expected.category_ids.tolist()
    assert [each["score"] for each in body["instances"]] == expected.scores.tolist()
    assert [each["box"] for each in body["instances"]] == expected.boxes.tolist()
    assert [each["area"] for each in body["instances"]] == expected.areas.tolist()
    for each, mask in zip(body["instances"], expected.masks, strict=True):
        assert (decode_rle(each["segmentation"]) == mask).all()
    assert list(body["timing"]) == ["decode_ms", "queue_ms", "predict_ms", "encode_ms", "total_ms"]
    stages = [body["timing"][f"{stage}_ms"] for stage in ("decode", "queue", "predict", "encode")]
    assert 0 < sum(stages) <= body["timing"]["total_ms"]


def test_threshold_model_and_count(client: Client, models: Models, dog: bytes) -> None:
    everything = models["solov2"].predictor.predict(EXAMPLES / "dog.jpg", 0.0)

    def scores(**values: Any) -> list[float]:
        body = client.post("/v1/predict", params=values, content=dog, headers=JPEG).json()
        return [each["score"] for each in body["instances"]]

    assert scores(threshold=0) == everything.scores.tolist()
    assert len(scores(threshold=0)) > 5
    assert scores(threshold=0.6) == everything.scores[:1].tolist()
    assert scores(threshold=0, max_instances=3) == everything.scores[:3].tolist()
    assert scores(threshold=1) == []
    nuclei = client.post("/v1/predict", params={"model": "nuclei"}, content=dog, headers=JPEG).json()
    assert (nuclei["model"], nuclei["threshold"]) == ("nuclei", 0.35)


def test_polygons_enclose_the_masks(client: Client, models: Models, dog: bytes) -> None:
    body = client.post("/v1/predict", params={"output": "polygon"}, content=dog, headers=JPEG).json()
    for each, mask in zip(
        body["instances"], models["solov2"].predictor.predict(EXAMPLES / "dog.jpg").masks, strict=True
    ):
        parts = coco_mask.frPyObjects(each["segmentation"], 448, 298)
        drawn = coco_mask.decode(coco_mask.merge(parts)).astype(bool)
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.98


def test_outlines_by_hand() -> None:
    assert sorted(map(tuple, np.reshape(outlines(np.ones((1, 1), bool), 3, 5)[0], (-1, 2)).tolist())) == [
        (3.25, 5.25),
        (3.25, 5.75),
        (3.75, 5.25),
        (3.75, 5.75),
    ]
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert len(outlines(ring, 0, 0)) == 1
    apart = np.array([[1, 0, 1]], bool)
    assert len(outlines(apart, 0, 0)) == 2
    assert outlines(np.zeros((0, 0), bool), 0, 0) == []
    for mask in (np.ones((1, 4), bool), ring | True, np.eye(4, dtype=bool)):
        parts = coco_mask.frPyObjects(outlines(mask, 2, 1), 8, 9)
        drawn = coco_mask.decode(coco_mask.merge(parts))
        expected = np.zeros((8, 9), np.uint8)
        expected[1 : 1 + mask.shape[0], 2 : 2 + mask.shape[1]] = mask
        assert (drawn == expected).all()


def test_the_id_map(make_client: Callable[..., Client]) -> None:
    answer = make_client(halves()).post(
        "/v1/predict", params={"output": "png", "threshold": 0}, content=picture_bytes(6, 4), headers=JPEG
    )
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.mode == "L"
        assert np.asarray(image).tolist() == [[1, 1, 1, 2, 2, 2]] * 4
        table = json.loads(image.text["solov2"])  # type: ignore[attr-defined]  # of PNG files
    assert [(each["category"], each["category_id"], each["area"]) for each in table] == [
        ("left", 7, 12),
        ("right", 9, 12),
    ]


def test_an_id_map_of_many(make_client: Callable[..., Client]) -> None:
    from solov2.structures import Instances

    class Many:
        score_threshold = 0.5
        categories = ()

        def predict_batch(self, pictures: list[Any], threshold: float) -> list[Instances]:
            masks = np.zeros((300, 20, 20), bool)
            masks.reshape(300, 400)[np.arange(300), np.arange(300)] = True
            return [Instances.from_masks(masks, [0] * 300, np.linspace(1, 0.6, 300)) for _ in pictures]

    models = halves()
    object.__setattr__(models.default, "predictor", Many())
    answer = make_client(models).post(
        "/v1/predict", params={"output": "png"}, content=picture_bytes(20, 20), headers=JPEG
    )
    with Image.open(io.BytesIO(answer.content)) as image:
        numbers = np.asarray(image)
    assert numbers.dtype == np.uint16
    assert numbers.ravel().tolist() == [*range(1, 301), *[0] * 100]


def test_the_overlay(client: Client, dog: bytes) -> None:
    answer = client.post("/v1/predict", params={"output": "overlay"}, content=dog, headers=JPEG)
    with Image.open(io.BytesIO(answer.content)) as image, Image.open(EXAMPLES / "dog.jpg") as before:
        assert image.size == before.size
        changed = (np.asarray(image) != np.asarray(before.convert("RGB"))).any(axis=2)
    assert 0.2 < changed.mean() < 0.9


@pytest.mark.parametrize(
    ("query", "values", "status", "said"),
    [
        ("", {"content": b"hello", "headers": JPEG}, 415, "not a picture"),
        ("", {"content": b"", "headers": JPEG}, 400, "the body is empty"),
        ("", {}, 400, "the body is empty"),
        ("", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "Content-Type is 'text/plain'"),
        ("", {"content": b"x"}, 415, "Content-Type is ''"),
        ("", {"json": {"image": "%"}}, 400, "no base64"),
        ("", {"json": {"image": 7}}, 422, "'image' is missing or no text"),
        ("", {"json": {"image": None}}, 422, "'image' is missing or no text"),
        ("", {"json": {}}, 422, "'image' is missing or no text"),
        ("", {"json": {"image": "", "threshold": 0.3}}, 422, "unknown key 'threshold'"),
        ("", {"json": [1]}, 400, "the JSON is a list"),
        ("", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "no JSON"),
        ("", {"files": {"picture": b"x"}}, 400, "0 fields are called 'image'"),
        ("", {"files": [("image", b"x"), ("image", b"y")]}, 400, "2 fields are called 'image'"),
        ("", {"files": [(f"f{number}", b"x") for number in range(20)]}, 400, "cannot be read"),
        ("", {"files": {"f": b"x"}, "data": {"image": "text"}}, 400, "is a text"),
        ("", {"content": b"junk", "headers": {"Content-Type": "multipart/form-data"}}, 400, "cannot be read"),
        ("", {"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=a"}}, 400, "image"),
        ("model=nope", {}, 404, "no model is called 'nope'; there is solov2, nuclei"),
        ("model=../../etc/passwd", {}, 404, "no model is called"),
        ("threshold=1.5", {}, 422, "threshold is '1.5'"),
        ("threshold=nan", {}, 422, "threshold is 'nan'"),
        ("threshold=", {}, 422, "threshold"),
        ("max_instances=0", {}, 422, "max_instances is '0'"),
        ("output=gif", {}, 422, "output is 'gif'"),
        ("treshold=0.3", {}, 422, "unknown query parameter 'treshold'"),
    ],
)
def test_refusals(client: Client, query: str, values: dict[str, Any], status: int, said: str) -> None:
    answer = client.post(f"/v1/predict?{query}", **values)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(("method", "address", "status"), [("GET", "/v1/predict", 405), ("GET", "/nope", 404)])
def test_other_addresses(client: Client, method: str, address: str, status: int) -> None:
    answer = client.start(method, address).result(60)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_the_list_of_models(client: Client, models: Models) -> None:
    cards = client.get("/v1/models").json()["models"]
    assert [(card["name"], card["default"], card["threshold"]) for card in cards] == [
        ("solov2", True, models["solov2"].predictor.score_threshold),
        ("nuclei", False, 0.35),
    ]
    assert [len(card["categories"]) for card in cards] == [80, 1]
    assert {card["licence"] for card in cards} == {"Apache-2.0"}
    assert {(card["runtime"], card["device"]) for card in cards} == {("torch", "cpu")}


def test_pictures_are_upright(make_client: Callable[..., Client]) -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(stream, "JPEG", exif=exif)
    body = make_client(halves()).post("/v1/predict", content=stream.getvalue(), headers=JPEG).json()
    assert body["image"] == {"width": 4, "height": 6}
