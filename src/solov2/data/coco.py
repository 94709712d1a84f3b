"""COCO json and a folder of pictures become samples; what is wrong with them is said all at once."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle_codec
from torch.utils.data import Dataset

from solov2.data.coco_checks import (
    Problem,
    check_annotation,
    check_images,
    check_labels,
    check_structure,
    compressed,
    report,
    usable_parts,
)
from solov2.data.image import RGB, laid_out, read_image
from solov2.data.loader import Key
from solov2.data.shapes import Bitmap, Polygons, Shape
from solov2.data.transforms import Sample, Transform
from solov2.errors import DatasetError, ImageError
from solov2.labelled import LABELLED
from solov2.structures import HW, Category

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CocoFile:
    """A COCO json, checked.

    Attributes:
        path: of the file; of the first, where several are put together.
        categories: in the file's order; a category's position is its label.
        images: the records of pictures that can be used.
        annotations: per image id, the records that can be used.
        problems: what was wrong with the others.
        known: per image id of a picture that was annotated for some categories only, their ids: of the
            others it may show objects without annotation.
    """

    path: Path
    categories: tuple[Category, ...]
    images: tuple[dict[str, Any], ...]
    annotations: dict[int, tuple[dict[str, Any], ...]]
    problems: tuple[Problem, ...]
    known: dict[int, frozenset[int]] = field(default_factory=dict)


def load_coco(path: Path, image_dir: Path | None = None) -> CocoFile:
    """Reads a COCO json and leaves out what cannot be used.

    Args:
        path: of the json.
        image_dir: folder of its pictures; where given, each is checked to be there, readable and of
            the stated size.

    Raises:
        DatasetError: if the file is missing, no json or has no COCO structure.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            data = json.load(stream)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; expected a COCO json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as json ({error}); expected a COCO json") from None
    check_structure(path, data)

    categories = tuple(Category(int(record["id"]), str(record["name"])) for record in data["categories"])
    problems: list[Problem] = []
    images = data["images"] if image_dir is None else check_images(data["images"], image_dir, problems)
    by_id = {record["id"]: record for record in images}
    all_ids = {record["id"] for record in data["images"]}
    category_ids = {category.id for category in categories}
    annotations: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in by_id}
    for record in data["annotations"]:
        problem = check_annotation(record, by_id, all_ids, category_ids)
        if problem is not None:
            problems.append(problem)
        elif record["image_id"] in by_id:
            annotations[record["image_id"]].append(record)
    images, known = check_labels(images, annotations, {c.id: c.name for c in categories}, problems)
    return CocoFile(
        path=path,
        categories=categories,
        images=tuple(sorted(images, key=lambda record: int(record["id"]))),
        annotations={record["id"]: tuple(annotations[record["id"]]) for record in images},
        problems=tuple(problems),
        known=known,
    )


class CocoDataset(Dataset[Sample]):
    """Samples of a COCO json.

    Args:
        source: the checked json.
        image_dir: folder of its pictures.
        transforms: applied to every sample, in order.
        categories: the model's classes, when they come from elsewhere: annotations are matched to
            them by id and name. Default: the json's own.
        with_annotations: give instances; without, only pictures, all of them.
        allow_empty: keep pictures without an instance.
        strict: refuse data with any problem instead of leaving the bad parts out.
        seed: of the transforms' random numbers, together with epoch and index.
        limit: use only the first pictures; -1 uses all.
        repeat_area: a picture occurs once for every so many of its pixels, at least once; None: once.

    Raises:
        DatasetError: if ``strict`` and there is a problem, if no picture is left, or if the json's
            categories are not the model's.
    """

    def __init__(
        self,
        source: CocoFile,
        image_dir: Path,
        *,
        transforms: Sequence[Transform] = (),
        categories: Sequence[Category] | None = None,
        with_annotations: bool = True,
        allow_empty: bool = True,
        strict: bool = False,
        seed: int = 0,
        limit: int = -1,
        repeat_area: int | None = None,
    ) -> None:
        if source.problems:
            text = report(source.path, source.problems)
            if strict:
                raise DatasetError(text)
            logger.warning("%s\nthese are left out", text)
        self.categories = source.categories if categories is None else tuple(categories)
        self._label_of = match_categories(source, self.categories)
        self.image_dir = image_dir
        self.transforms = tuple(transforms)
        self.strict = strict
        self.seed = seed
        self._with_annotations = with_annotations
        self._annotations = source.annotations if with_annotations else {}
        self._source = source
        self._images = tuple(
            record
            for record in source.images
            if not with_annotations or allow_empty or any(not is_crowd(a) for a in source.annotations[record["id"]])
        )[: limit if limit >= 0 else None]
        if not self._images:
            raise DatasetError(
                f"{source.path}: no picture is left to use in {image_dir}; "
                "check the image folder, or allow pictures without instances"
            )
        if repeat_area is not None:
            self._images = tuple(
                record
                for record in self._images
                for _ in range(max(round(record["height"] * record["width"] / repeat_area), 1))
            )

    def __len__(self) -> int:
        return len(self._images)

    def ground_truth(self) -> dict[str, Any]:
        """What its pictures should be measured against, in COCO's form: only what passed the checks."""
        annotations = [
            {**record, "segmentation": _clean(record["segmentation"])}
            for image in self._images
            for record in self._source.annotations[image["id"]]
        ]
        categories = [{"id": category.id, "name": category.name} for category in self._source.categories]
        known = {number: {LABELLED: sorted(ids)} for number, ids in self._source.known.items()}
        images = [image | known.get(image["id"], {}) for image in self._images]
        return {"images": images, "annotations": annotations, "categories": categories}

    @property
    def records(self) -> tuple[dict[str, Any], ...]:
        """The json's records of its pictures."""
        return self._images

    @property
    def sizes(self) -> list[HW]:
        """Height and width of every picture, as the json states them."""
        return [(record["height"], record["width"]) for record in self._images]

    def __getitem__(self, key: Key) -> Sample:
        """The sample for (epoch, index); its random numbers depend on both and the seed alone.

        Unless the data set is strict, a picture whose pixels cannot be decoded is replaced, with a
        warning: in training by the next one, in evaluation by a black one, so that its objects count
        as not found.
        """
        _, index = key
        rng = np.random.default_rng([self.seed, *key])
        return self._transformed(self._usable(index), index, self.transforms, rng)

    def _usable(self, index: int) -> Sample:
        """The picture at an index or, if it cannot be decoded, what stands for it."""
        for step in range(len(self)):
            record = self._images[(index + step) % len(self)]
            try:
                return self._read(record)
            except ImageError as error:
                if self.strict:
                    raise
                if not self._with_annotations:
                    logger.warning("%s; its objects count as not found", error)
                    return self._black(record)
                logger.warning("%s; the next picture is used instead", error)
        raise DatasetError(f"{self.image_dir}: not one of its {len(self)} pictures can be read")

    def _transformed(
        self, sample: Sample, index: int, transforms: Sequence[Transform], rng: np.random.Generator
    ) -> Sample:
        for position, transform in enumerate(transforms):
            image = laid_out(sample.image)
            if image is not sample.image:
                sample = replace(sample, image=image)
            if hasattr(transform, "pair"):  # what makes a PairTransform; isinstance takes its time with protocols
                sample = transform.pair(sample, rng, partial(self._other, index, transforms[:position], rng))
            else:
                sample = transform(sample, rng)
        return sample

    def _other(self, index: int, transforms: Sequence[Transform], rng: np.random.Generator) -> Sample:
        """Any picture but that at ``index``, where there is another, after the same transforms."""
        other = (index + 1 + int(rng.integers(max(len(self) - 1, 1)))) % len(self)
        return self._transformed(self._usable(other), other, transforms, rng)

    @staticmethod
    def _black(record: dict[str, Any]) -> Sample:
        image = np.zeros((record["height"], record["width"], 3), np.uint8)
        return Sample.of_image(image, int(record["id"]), str(record["file_name"]))

    def _read(self, record: dict[str, Any]) -> Sample:
        image = read_image(self.image_dir / record["file_name"])
        annotations = [a for a in self._annotations.get(record["id"], ()) if not is_crowd(a)]
        return make_sample(image, record, annotations, self._label_of, self._known(record["id"]))

    def _known(self, image_id: int) -> npt.NDArray[np.bool_] | None:
        ids = self._source.known.get(image_id) if self._with_annotations else None
        return None if ids is None else np.array([category.id in ids for category in self.categories], bool)


def make_sample(
    image: RGB,
    record: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    label_of: Mapping[int, int],
    known: npt.NDArray[np.bool_] | None = None,
) -> Sample:
    """A picture with its instances, as they stand in the json.

    Args:
        image: (H, W, 3).
        record: the picture's, in COCO's form.
        annotations: its instances', checked and without crowds.
        label_of: labels by category id.
        known: (C,), the categories it was annotated for; None: all.
    """
    hw = (image.shape[0], image.shape[1])
    return Sample(
        image=image,
        original_hw=hw,
        image_id=int(record["id"]),
        name=str(record["file_name"]),
        labels=np.array([label_of[a["category_id"]] for a in annotations], np.int64),
        boxes=np.array([_box_of(a) for a in annotations], np.float64).reshape(-1, 4),
        shapes=tuple(shape_of(a["segmentation"], hw) for a in annotations),
        known=known,
    )


def is_crowd(annotation: dict[str, Any]) -> bool:
    """Whether it marks a region of many objects, which no single mask can be learned from."""
    return bool(annotation.get("iscrowd", 0))


def match_categories(source: CocoFile, categories: Sequence[Category]) -> dict[int, int]:
    """Label of each of the json's category ids, by the model's list.

    Raises:
        DatasetError: if the json has a category that the model has not, or under another name.
    """
    labels = {category.id: label for label, category in enumerate(categories)}
    for category in source.categories:
        if category.id not in labels:
            raise DatasetError(
                f"{source.path}: category {category.id} ({category.name!r}) is none of the model's "
                f"{len(categories)} classes {_names(categories)}; use the json the model was trained for"
            )
        expected = categories[labels[category.id]].name
        if category.name != expected:
            raise DatasetError(
                f"{source.path}: category {category.id} is {category.name!r} here and {expected!r} in the model; "
                "use the json the model was trained for"
            )
    return {category.id: labels[category.id] for category in source.categories}


def _names(categories: Sequence[Category]) -> str:
    shown = ", ".join(f"{category.id} {category.name!r}" for category in categories[:10])
    return f"({shown}{', …' if len(categories) > 10 else ''})"


def _box_of(annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in annotation["bbox"])
    return x, y, x + width, y + height


def shape_of(segmentation: Any, hw: tuple[int, int]) -> Shape:
    """The shape of a COCO segmentation: polygons, or run lengths as a list or compressed.

    Args:
        segmentation: as the json has it.
        hw: size of the picture.
    """
    if isinstance(segmentation, dict):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycocotools' own use of NumPy
            return Bitmap.of(rle_codec.decode(compressed(segmentation)))
    return Polygons(tuple(usable_parts(segmentation)))


def _clean(segmentation: Any) -> Any:
    if isinstance(segmentation, dict):
        return segmentation
    return [part.ravel().tolist() for part in usable_parts(segmentation)]
