import copy
import importlib.util
import io
import json
import math
import pickle
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from solov2.coco_metrics import (
    Matching,
    Tally,
    ap_of,
    best_threshold,
    mask_ap,
    matching_of,
    pooled_matching,
    read_ground_truth,
    save_curves,
)
from solov2.coco_metrics.curves import draw_curve
from solov2.errors import DatasetError, MissingDependencyError

PARITY = Path(__file__).parent / "parity"

# ap_gt.json and ap_dt.json as PaddleDetection's COCO evaluation sees them (commit 666f597f, paddlepaddle 2.6.2,
# CPU, 2026): the 12 numbers at full precision.
FROZEN_STATS = (
    0.22414544611108386, 0.5250829112215252, 0.1815618326538536, 0.16173175650898422, 0.4592314945780292, -1.0,
    0.21654040404040403, 0.4025252525252526, 0.4025252525252526, 0.29761904761904756, 0.5733333333333331, -1.0,
)  # fmt: skip

PERFECT = pytest.approx(1.0)  # pycocotools adds the smallest float to its denominators


def rle(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def rectangle(y0, x0, y1, x1, hw=(10, 20)):
    mask = np.zeros(hw, bool)
    mask[y0:y1, x0:x1] = True
    return rle(mask)


def scene(*objects, images=1, categories=(1,), hw=(10, 20)):
    """A ground truth; an object is a mask and any annotation fields."""
    return {
        "images": [{"id": number, "height": hw[0], "width": hw[1]} for number in range(1, images + 1)],
        "categories": [{"id": number, "name": f"c{number}"} for number in categories],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": categories[0], "segmentation": mask, **fields}
            for number, (mask, fields) in enumerate(objects, start=1)
        ],
    }


def result(mask, score=0.5, image_id=1, category_id=1, **fields):
    return {"image_id": image_id, "category_id": category_id, "segmentation": mask, "score": score, **fields}


def reference(truth, results, limits=(1, 10, 100)):
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "segm")
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def reference_stats(truth, results):
    evaluation = reference(truth, results)
    with redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return tuple(evaluation.stats.tolist())


def random_mask(generator, hw):
    height, width = (int(generator.integers(1, side // 2)) for side in hw)
    y0, x0 = int(generator.integers(hw[0] - height + 1)), int(generator.integers(hw[1] - width + 1))
    mask = np.zeros(hw, bool)
    mask[y0 : y0 + height, x0 : x0 + width] = generator.random((height, width)) < 0.9
    return mask


def random_scene(seed, *, crowds=0.0, ties=False, empty=0.0, polygons=False, detections=25, categories=(1, 3, 7, 90)):
    """Pictures of unequal size in random order, some without objects, some without detections; gaps in all ids."""
    generator = np.random.default_rng(seed)
    truth = {"images": [], "annotations": [], "categories": [{"id": c, "name": f"c{c}"} for c in categories]}
    results = []
    for position in generator.permutation(6).tolist():
        hw = tuple(generator.integers(40, 160, 2).tolist())
        image_id = position * 13 + 1
        truth["images"].append({"id": image_id, "height": hw[0], "width": hw[1]})
        masks = []
        for _ in range(generator.integers(1, 10) if position != 2 else 0):
            mask = random_mask(generator, hw) & (generator.random() >= empty)
            category = int(generator.choice(categories[:-1]))
            segmentation = rle(mask)
            if polygons:
                x0, y0, width, height = coco_mask.toBbox(segmentation).tolist()
                segmentation = [[x0, y0, x0 + width, y0, x0 + width, y0 + height, x0, y0 + height / 2]]
            annotation = {"image_id": image_id, "category_id": category, "segmentation": segmentation}
            annotation |= {"area": float(mask.sum()), "iscrowd": int(generator.random() < crowds)}
            truth["annotations"].append(annotation | {"id": len(truth["annotations"]) + 1})
            masks.append((mask, category))
        for _ in range(detections if position != 4 else 0):
            mask, category = random_mask(generator, hw), int(generator.choice(categories))
            if masks and generator.random() < 0.7:
                mask, category = masks[generator.integers(len(masks))]
                mask = np.roll(mask, generator.integers(-2, 3, 2), (0, 1))
            mask = mask & (generator.random() >= empty)
            score = generator.choice([0.1, 0.3, 0.9]) if ties else np.float32(generator.random())
            results.append(result(rle(mask), float(score), image_id, category))
    return truth, results


SITUATIONS = {
    "plain": {},
    "crowds": {"crowds": 0.5},
    "score ties": {"ties": True},
    "empty masks": {"empty": 0.3},
    "polygons": {"polygons": True},
    "over 100 detections": {"detections": 450, "categories": (1, 3)},
    "everything": {"crowds": 0.2, "ties": True, "empty": 0.1, "detections": 150, "categories": (2, 5)},
}


@pytest.mark.parametrize("settings", SITUATIONS.values(), ids=SITUATIONS.keys())
def test_stats_are_pycocotools_exactly(settings):
    for seed in range(3):
        truth, results = random_scene(seed, **settings)
        assert mask_ap(truth, results).stats == reference_stats(truth, results)


@pytest.mark.parametrize("max_dets", [1, 5, 10, 30, 300])
def test_any_number_of_detections_is_as_in_pycocotools(max_dets):
    for seed in range(2):
        truth, results = random_scene(seed, detections=120, ties=True, crowds=0.2, categories=(1, 3, 4))
        arrays = reference(truth, results, sorted({1, 10, max_dets})).eval
        measured = mask_ap(truth, results, max_dets=max_dets)
        last = sorted({1, 10, max_dets}).index(max_dets)
        precision, recall = arrays["precision"][..., 0, last], arrays["recall"][..., 0, last]
        assert measured.stats[0] == precision[precision > -1].mean()
        assert measured.stats[8] == recall[recall > -1].mean()
        for index, name in enumerate(("c1", "c3")):
            assert measured.curves[name].tolist() == precision[0, :, index].tolist()
            assert measured.per_class[name] == precision[:, :, index].mean()


def test_frozen_numbers_of_paddledetection(capfd):
    results = json.loads((PARITY / "ap_dt.json").read_text())
    measured = mask_ap(PARITY / "ap_gt.json", results)
    assert measured.stats == pytest.approx(FROZEN_STATS, abs=1e-12)
    assert measured.max_dets == 100
    assert capfd.readouterr() == ("", "")


def test_max_dets_limits_detections_per_picture_and_class():
    # Three objects; the best detection is right, then two false ones, then two right ones.
    places = [(0, 0, 5, 5), (0, 10, 5, 15), (5, 5, 10, 10)]
    truth = scene(*[(rectangle(*place), {}) for place in places])
    found = [rectangle(*places[0]), *[rectangle(9, 19, 10, 20)] * 2, rectangle(*places[1]), rectangle(*places[2])]
    results = [result(mask, score) for mask, score in zip(found, (0.9, 0.8, 0.7, 0.6, 0.5), strict=True)]

    one = mask_ap(truth, results, max_dets=1)
    assert one.ap == pytest.approx(34 / 101)  # precision 1 up to recall 1/3: steps 0.00 .. 0.33
    assert one.stats[8] == pytest.approx(1 / 3)
    three = mask_ap(truth, results, max_dets=3)
    assert three.stats[8] == pytest.approx(1 / 3)
    assert mask_ap(truth, results, max_dets=5).stats[8] == 1.0
    assert (one.names[8], three.names[8], one.names[6]) == ("AR@1", "AR@3", "AR@1")


def test_no_detections():
    truth = scene((rectangle(0, 0, 5, 5), {}), categories=(1, 2))
    measured = mask_ap(truth, [])
    # 25 pixels are a small object; there is no medium and no large one.
    assert measured.stats == (0, 0, 0, 0, -1, -1, 0, 0, 0, 0, -1, -1)
    assert measured.per_class == {"c1": 0, "c2": -1}


def test_no_objects():
    assert mask_ap(scene(), [result(rectangle(0, 0, 5, 5))]).stats == (-1,) * 12


def test_fields_a_file_may_lack():
    mask = rectangle(0, 0, 5, 5)
    truth = scene((mask, {}), ([[0, 5, 5, 5, 5, 10, 0, 10]], {}))  # neither info, iscrowd nor area
    assert mask_ap(truth, [result(mask)]).stats[3] == pytest.approx(51 / 101)
    del truth["images"][0]["height"]
    with pytest.raises(DatasetError, match="'height' and 'width' are not in the file"):
        mask_ap(truth, [])
    del truth["annotations"][1]
    assert mask_ap(truth, [result(mask)]).ap == PERFECT


@pytest.mark.parametrize("ids", [(0, 1), (7, 7), (None, None)])
def test_annotation_ids_do_not_matter(ids):
    masks = rectangle(0, 0, 5, 5), rectangle(5, 5, 10, 10)
    truth = scene(*[(mask, {"id": number}) for mask, number in zip(masks, ids, strict=True)])
    assert mask_ap(truth, [result(mask) for mask in masks]).ap == PERFECT


def test_ids_may_be_text():
    truth = scene((rectangle(0, 0, 5, 5), {}))
    truth["images"][0]["id"] = truth["annotations"][0]["image_id"] = "a.jpg"
    assert mask_ap(truth, [result(rectangle(0, 0, 5, 5), image_id="a.jpg")]).ap == PERFECT


def test_boxes_of_results_do_not_sort_them_by_size():
    # A false detection of few pixels in a large box is small: it must not lower the AP of large objects.
    large, corners = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    large[:150, :150] = True
    corners[[0, 199], [0, 199]] = True
    truth = scene((rle(large), {}), hw=(200, 200))
    results = [result(rle(large), 0.5), result(rle(corners), 0.9, bbox=[0.0, 0.0, 200.0, 200.0], area=40000)]
    measured = mask_ap(truth, results)
    assert measured.stats[5] == PERFECT
    assert measured.ap == pytest.approx(0.5)


def test_arguments_stay_as_they_are():
    truth, results = random_scene(0, polygons=True)
    before = copy.deepcopy((truth, results))
    mask_ap(truth, results)
    pooled_matching(truth, results, 0.5)
    assert (truth, results) == before


def test_masks_as_run_lengths():
    truth = scene(({"size": [10, 20], "counts": [0, 100, 100]}, {}))
    measured = mask_ap(truth, [result({"size": [10, 20], "counts": [0, 100, 100]})])
    assert measured.ap == PERFECT


def test_names_table_and_classes():
    truth = scene((rectangle(0, 0, 5, 5), {}), categories=(1, 2, 3))
    truth["categories"][2]["name"] = "c2"
    measured = mask_ap(truth, [result(rectangle(0, 0, 5, 5))])
    assert (measured.ap, measured.ap50, measured.ap75) == (PERFECT,) * 3
    assert measured.per_class == {"c1": PERFECT, "c2 (2)": -1.0, "c2 (3)": -1.0}
    lines = measured.table(per_class=True)
    assert lines[0].split() == ["AP", "1.000"]
    assert lines[5].split() == ["AP", "large", "-"]
    assert lines[-2].split() == ["c1", "1.000"]
    assert lines[-1] == "2 classes do not occur in the annotations"
    assert len(measured.table()) == len(measured.names) == 12


def test_curves():
    """Two of two found at recall 1; a wrong one between them costs precision from recall 0.5 on."""
    first, second, wrong = rectangle(0, 0, 5, 5), rectangle(5, 5, 10, 10), rectangle(0, 10, 5, 15)
    truth = scene((first, {}), (second, {}), categories=(1, 2))
    found = [result(first, score=0.9), result(wrong, score=0.8), result(second, score=0.7)]
    curves = mask_ap(truth, found).curves
    assert list(curves) == ["c1"]
    assert curves["c1"][:51] == pytest.approx([1.0] * 51)
    assert curves["c1"][51:] == pytest.approx([2 / 3] * 50)


def test_curves_are_drawn(tmp_path):
    paths = save_curves({"a/b": np.linspace(1, 0, 101), "c": np.zeros(101)}, tmp_path / "deep")
    assert [path.name for path in paths] == ["a_b_precision_recall_curve.jpg", "c_precision_recall_curve.jpg"]
    falling, empty = (draw_curve("x", curve) for curve in (np.linspace(1, 0, 101), np.zeros(101)))
    assert falling.shape == (400, 480, 3)
    filled = (falling != empty).any(axis=2)
    axes = (480 - 56 - 24) * (400 - 40 - 48)
    assert filled.sum() == pytest.approx(axes / 2, rel=0.1)  # the area under a straight line


def test_boundary_ap_punishes_a_coarse_outline():
    """A mask one pixel too large all around is good as an area and bad as an outline."""
    pytest.importorskip("faster_coco_eval")
    truth = scene((rectangle(20, 20, 60, 60, hw=(100, 100)), {}), hw=(100, 100))
    found = [result(rectangle(17, 17, 63, 63, hw=(100, 100)))]
    area, boundary = mask_ap(truth, found), mask_ap(truth, found, boundary=True)
    assert 0 <= boundary.ap < area.ap
    perfect = [result(rectangle(20, 20, 60, 60, hw=(100, 100)))]
    assert mask_ap(truth, perfect, boundary=True).ap == PERFECT
    assert mask_ap(truth, [], boundary=True).ap == 0


def test_boundary_ap_is_that_of_faster_coco_eval():
    package = pytest.importorskip("faster_coco_eval")
    for seed in range(3):
        truth, results = random_scene(seed, crowds=0.2)
        with redirect_stdout(io.StringIO()):
            annotated = package.COCO(copy.deepcopy(truth))
            found = annotated.loadRes(copy.deepcopy(results))
            evaluation = package.COCOeval_faster(annotated, found, iouType="boundary")
            evaluation.evaluate()
            evaluation.accumulate()
        for metric in ("precision", "recall"):
            theirs = evaluation.eval[metric][..., 0, 2]
            expected = theirs[theirs > -1].mean()
            ours = mask_ap(truth, results, boundary=True)
            assert (ours.ap if metric == "precision" else ours.stats[8]) == pytest.approx(expected, abs=1e-12)


def test_boundary_ap_needs_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"solov2\[boundary\]"):
        mask_ap(scene((rectangle(0, 0, 5, 5), {})), [], boundary=True)


MASK = rectangle(0, 0, 5, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "picture id 9"),
        ({"segmentation": rectangle(0, 0, 5, 5, (20, 10))}, "is 20x10 .* 10x20"),
        ({"segmentation": None}, "segmentation None"),
        ({"score": math.nan}, "score nan"),
        ({"score": None}, "score None"),
    ],
)
def test_results_that_do_not_fit_are_refused(change, message):
    truth = scene((MASK, {}))
    for measure in (mask_ap, lambda *sources: pooled_matching(*sources, 0.5)):
        with pytest.raises(DatasetError, match=message):
            measure(truth, [result(MASK), {**result(MASK), **change}])


def test_results_of_unknown_classes_are_named_and_left_out(caplog):
    assert mask_ap(scene((MASK, {})), [result(MASK), result(MASK, 0.9, category_id=55)]).ap == PERFECT
    assert "category ids [55]" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no annotation file"),
        ("{", "not a json file"),
        ("[]", "is it a results file"),
        ('{"images": []}', "has no .*'annotations', 'categories'"),
        ('{"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": []}', r"several images of id \[1\]"),
        ('{"images": [{}], "annotations": [], "categories": []}', "cannot be sorted by 'id'"),
    ],
)
def test_files_that_are_no_ground_truth_are_refused(content, message, tmp_path):
    path = tmp_path / "truth.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        mask_ap(path, [])


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="max_dets is 0"):
        mask_ap(scene((MASK, {})), [result(MASK)], max_dets=0)


LEFT, RIGHT = rectangle(0, 0, 10, 10), rectangle(0, 10, 10, 20)
HALF_OF_LEFT = rectangle(0, 0, 5, 10)  # IoU 0.5
BIT_OF_LEFT = rectangle(0, 0, 4, 10)  # IoU 0.4
MOST_OF_LEFT = rectangle(0, 0, 8, 10)  # IoU 0.8
CROWD = {"iscrowd": 1}


@pytest.mark.parametrize(
    ("objects", "results", "expected"),
    [
        ([], [], (0, 0, 0, 0.0)),
        ([(LEFT, {})], [], (0, 0, 1, 0.0)),
        ([], [result(LEFT)], (0, 1, 0, 0.0)),
        ([(LEFT, {})], [result(HALF_OF_LEFT)], (1, 0, 0, 0.5)),
        ([(LEFT, {})], [result(BIT_OF_LEFT)], (0, 1, 1, 0.0)),
        ([(LEFT, {}), (RIGHT, {})], [result(LEFT), result(RIGHT)], (2, 0, 0, 2.0)),
        # the better score chooses first, whatever the order of the records
        ([(LEFT, {})], [result(LEFT, 0.5), result(MOST_OF_LEFT, 0.9)], (1, 1, 0, 0.8)),
        # equal scores: the first record chooses first
        ([(LEFT, {})], [result(LEFT), result(MOST_OF_LEFT)], (1, 1, 0, 1.0)),
        # an object already taken leaves the next best one
        ([(LEFT, {}), (MOST_OF_LEFT, {})], [result(LEFT, 0.9), result(LEFT, 0.8)], (2, 0, 0, 1.8)),
        # below the score threshold of 0.3, and on it
        ([(LEFT, {})], [result(LEFT, 0.29)], (0, 0, 1, 0.0)),
        ([(LEFT, {})], [result(LEFT, 0.3)], (1, 0, 0, 1.0)),
        # crowds are nothing to find, and swallow what lies in them
        ([(LEFT, CROWD)], [], (0, 0, 0, 0.0)),
        ([(LEFT, CROWD)], [result(BIT_OF_LEFT), result(LEFT)], (0, 0, 0, 0.0)),
        ([(LEFT, CROWD)], [result(RIGHT)], (0, 1, 0, 0.0)),
        ([(LEFT, {}), (LEFT, CROWD)], [result(LEFT), result(LEFT)], (1, 0, 0, 1.0)),
        # classes and pictures do not mix
        ([(LEFT, {})], [result(LEFT, category_id=2)], (0, 1, 1, 0.0)),
        ([(LEFT, {})], [result(LEFT, image_id=2)], (0, 1, 1, 0.0)),
        # an empty mask is found by nothing and finds nothing
        ([(rectangle(0, 0, 0, 0), {})], [result(rectangle(0, 0, 0, 0))], (0, 1, 1, 0.0)),
    ],
)
def test_matches_counted_by_hand(objects, results, expected):
    truth = scene(*objects, images=2, categories=(1, 2))
    counts = pooled_matching(truth, results, 0.3)
    assert set(counts) == {"all"}
    assert (counts["all"].tp, counts["all"].fp, counts["all"].fn) == expected[:3]
    assert counts["all"].iou_sum == pytest.approx(expected[3])


def test_the_iou_threshold_is_inclusive_and_settable():
    truth, results = scene((LEFT, {})), [result(HALF_OF_LEFT)]
    assert [pooled_matching(truth, results, 0.0, iou)["all"].tp for iou in (0.5, 0.51)] == [1, 0]


def test_groups_are_counted_apart_and_together():
    truth = scene((LEFT, {}), (RIGHT, {"image_id": 2}), (RIGHT, {"image_id": 3}), images=4)
    results = [result(LEFT), result(LEFT, image_id=2), result(RIGHT, image_id=3)]
    counts = pooled_matching(truth, results, 0.5, groups={1: "stained", 2: "fluorescence", 4: "gray"})
    assert counts["stained"] == Matching(tp=1, iou_sum=1.0)
    assert counts["fluorescence"] == Matching(fp=1, fn=1)
    assert counts["gray"] == Matching()
    assert counts["all"] == Matching(tp=2, fp=1, fn=1, iou_sum=2.0)
    with pytest.raises(ValueError, match="a group is called 'all'"):
        pooled_matching(truth, results, 0.5, groups={1: "all"})


def test_the_best_threshold_is_that_of_single_counts():
    """Matching once and matching what is left at each threshold come to the same: the better score chooses first."""
    for seed in range(2):
        truth, results = random_scene(seed, crowds=0.2, ties=seed == 1)
        tally = Tally(read_ground_truth(truth))
        tally.add(results)
        scores = {}
        for threshold in np.arange(0.1, 0.901, 0.05).round(2).tolist():
            left = [record for record in results if record["score"] >= threshold]
            alone = pooled_matching(truth, left, 0.0)
            assert matching_of(tally, threshold) == alone == pooled_matching(truth, results, threshold)
            scores[threshold] = alone["all"].score
        assert best_threshold(tally) == max(scores, key=scores.get)


def test_no_threshold_is_best_where_nothing_is_right():
    tally = Tally(read_ground_truth(scene((LEFT, {}))))
    assert best_threshold(tally) is None
    tally.add([result(RIGHT, 0.9)])
    assert best_threshold(tally) is None
    tally.add([result(RIGHT, 0.9), result(LEFT, 0.31)])
    assert best_threshold(tally) == pytest.approx(0.1)


def test_pictures_may_come_one_by_one_in_any_order():
    truth, results = random_scene(0, crowds=0.2, ties=True)
    tally = Tally(read_ground_truth(truth))
    for image in sorted(truth["images"], key=lambda image: -image["id"]):
        tally.add([record for record in results if record["image_id"] == image["id"]])
    assert ap_of(tally, 100).stats == mask_ap(truth, results).stats


@pytest.mark.parametrize("side", [40, 800])
def test_a_detection_leaves_a_few_bytes_however_large_the_picture(side):
    mask = np.zeros((side, side), bool)
    mask[::2, : side // 10] = True  # many runs: as large an RLE as there can be
    truth = scene((rle(mask), {}), hw=(side, side))
    tally = Tally(read_ground_truth(truth))
    tally.add([result(rle(mask), 0.1 + number / 100) for number in range(20)])
    (table,) = tally.by_picture.values()
    assert table.nbytes == 20 * 38
    assert len(pickle.dumps(tally.by_picture)) < 20 * 38 + 1000  # what processes send to the first one
    assert matching_of(tally, 0.0)["all"] == Matching(tp=1, fp=19, iou_sum=1.0)


def test_quotients():
    counts = Matching(tp=3, fp=1, fn=2, iou_sum=2.4)
    assert counts.score == pytest.approx(3 / 6)
    assert counts.segmentation_quality == pytest.approx(0.8)
    assert counts.panoptic_quality == pytest.approx(2.4 / 4.5)
    assert Matching(fp=1).score == Matching(fn=1).panoptic_quality == 0.0
    assert all(map(math.isnan, (Matching().score, Matching().panoptic_quality, Matching(fp=1).segmentation_quality)))
