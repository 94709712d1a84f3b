import numpy as np
import pytest
from PIL import Image

from solov2.errors import ImageError
from solov2.structures import Category, Instances
from solov2.visualize import draw_instances, instance_colors, save_picture

CATEGORIES = (Category(1, "cell"), Category(2, "a class of a very long name"))


def picture(height, width, value=90):
    return np.full((height, width, 3), value, np.uint8)


def instances_of(hw, *boxes, labels=None, scores=None):
    """Filled boxes x0 y0 x1 y1 as masks."""
    masks = np.zeros((len(boxes), *hw), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    scores = np.linspace(0.9, 0.5, len(boxes)) if scores is None else scores
    return Instances.from_masks(masks, [0] * len(boxes) if labels is None else labels, scores, CATEGORIES)


def changed(before, after):
    return (before != after).any(axis=2)


@pytest.mark.parametrize(
    ("hw", "boxes"),
    [
        ((1, 1), [(0, 0, 1, 1)]),
        ((1, 40), [(3, 0, 9, 1)]),
        ((40, 1), [(0, 3, 1, 9)]),
        ((32, 32), [(0, 0, 32, 32), (31, 31, 32, 32), (5, 5, 9, 20)]),
        ((33, 47), [(10, 10, 10, 10), (0, 0, 47, 1)]),
        ((600, 900), [(20, 20, 300, 400), (250, 100, 880, 590)]),
    ],
)
@pytest.mark.parametrize("labels", [None, True, False])
def test_shape_type_and_the_input_untouched(hw, boxes, labels):
    before = picture(*hw)
    before.flags.writeable = False
    found = instances_of(hw, *boxes)
    drawn = draw_instances(before, found, labels=labels)
    assert (drawn.shape, drawn.dtype) == ((*hw, 3), np.uint8)
    assert changed(before, drawn).any()
    assert (before == 90).all()
    np.testing.assert_array_equal(drawn, draw_instances(before, found, labels=labels))


@pytest.mark.parametrize("labels", [None, True])
@pytest.mark.parametrize("boxes", [[], [(4, 4, 4, 4)]], ids=["no instances", "an empty mask"])
def test_nothing_to_draw_gives_a_copy(boxes, labels):
    before = picture(20, 30)
    drawn = draw_instances(before, instances_of((20, 30), *boxes), labels=labels)
    np.testing.assert_array_equal(drawn, before)
    assert not np.shares_memory(drawn, before)


def test_a_picture_seen_backwards_can_be_drawn_on():
    bgr = picture(40, 40)
    bgr[..., 0] = 10
    found = instances_of((40, 40), (5, 5, 30, 30))
    np.testing.assert_array_equal(
        draw_instances(bgr[::-1, :, ::-1], found), draw_instances(bgr[::-1, :, ::-1].copy(), found)
    )


def test_the_fill_lets_the_picture_through():
    before = picture(100, 100)
    before[40:60, 40:60] = 200
    drawn = draw_instances(before, instances_of((100, 100), (10, 10, 90, 90)), labels=False).astype(int)
    inside, around = drawn[50, 50], drawn[30, 30]
    assert (abs(inside - around - 0.6 * 110) <= 1).all()  # what 60 % of the picture's difference leaves
    np.testing.assert_allclose(around, 0.6 * 90 + 0.4 * instance_colors(1)[0].astype(int), atol=1)


def test_drawing_stays_near_the_masks():
    before = picture(200, 200)
    drawn = draw_instances(before, instances_of((200, 200), (50, 60, 120, 140)), labels=False)
    where = changed(before, drawn)
    assert where[60:140, 50:120].all()
    where[57:143, 47:123] = False
    assert not where.any()


def test_a_hole_stays_clear_and_is_outlined():
    masks = np.zeros((1, 100, 100), bool)
    masks[0, 10:90, 10:90] = True
    masks[0, 30:70, 30:70] = False
    before = picture(100, 100)
    drawn = draw_instances(before, Instances.from_masks(masks, [0], [0.9], CATEGORIES), labels=False)
    assert not changed(before, drawn)[35:65, 35:65].any()
    edge, fill = drawn[50, 29].astype(int), drawn[50, 20].astype(int)
    assert abs(edge - fill).sum() > 30


def test_small_objects_lie_over_large_ones_whatever_their_scores():
    hw = (200, 200)
    both = draw_instances(picture(*hw), instances_of(hw, (90, 90, 110, 110), (0, 0, 200, 200)), labels=False)
    large_alone = draw_instances(picture(*hw), instances_of(hw, (0, 0, 0, 0), (0, 0, 200, 200)), labels=False)
    expected = 0.6 * large_alone[100, 100] + 0.4 * instance_colors(1)[0]
    np.testing.assert_allclose(both[100, 100], expected, atol=1.5)


@pytest.mark.parametrize(("min_score", "kept"), [(0.0, 2), (0.5, 2), (0.51, 1), (0.95, 0)])
def test_min_score_is_the_lowest_score_shown(min_score, kept):
    hw = (60, 120)
    boxes = [(5, 5, 50, 50), (65, 5, 110, 50)]
    drawn = draw_instances(picture(*hw), instances_of(hw, *boxes), min_score=min_score, labels=False)
    halves = changed(picture(*hw), drawn)[:, :60].any(), changed(picture(*hw), drawn)[:, 60:].any()
    assert sum(halves) == kept
    assert halves[0] == (kept > 0)


def test_lines_grow_with_the_picture():
    def line_pixels(side):
        hw = (side, side)
        found = instances_of(hw, (side // 4, side // 4, side // 2, side // 2))
        outside = changed(picture(*hw), draw_instances(picture(*hw), found, labels=False))[side * 3 // 8]
        return np.count_nonzero(outside) - (side // 2 - side // 4)

    assert 0 <= line_pixels(64) <= 2
    assert line_pixels(64) < line_pixels(1200) < line_pixels(3000) < 40


def label_pixels(hw, *boxes, labels=True, label=0):
    found = instances_of(hw, *boxes, labels=[label] * len(boxes))
    plain, labelled = (draw_instances(picture(*hw), found, labels=value) for value in (False, labels))
    return changed(plain, labelled)


def extent(where):
    rows, columns = np.nonzero(where)
    return rows.max() - rows.min() + 1, columns.max() - columns.min() + 1


@pytest.mark.parametrize(
    ("boxes", "shown"),
    [
        ([(50, 50, 200, 200)], True),
        ([(50, 50, 53, 200)], False),  # the label would be far wider than the object
        ([(50 + 8 * n, 50, 56 + 8 * n, 200) for n in range(31)], False),
        (
            [(10 + 100 * (n % 4), 10 + 100 * (n // 4), 100 + 100 * (n % 4), 90 + 100 * (n // 4)) for n in range(12)],
            True,
        ),
    ],
    ids=["one", "narrow", "31 instances", "12 large instances"],
)
def test_labels_by_default(boxes, shown):
    assert label_pixels((400, 420), *boxes, labels=None).any() == shown
    assert label_pixels((400, 420), *boxes, labels=True).any()


def test_a_tiny_picture_gets_no_labels_by_default():
    assert not label_pixels((40, 60), (0, 0, 60, 40), labels=None).any()


def test_thirty_one_large_instances_get_no_labels_by_default():
    assert not label_pixels((400, 420), *[(0, 0, 420, 400 - n) for n in range(31)], labels=None).any()


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 60, 60),
        (340, 0, 400, 60),
        (0, 240, 60, 300),
        (340, 240, 400, 300),
        (0, 0, 400, 300),
        (399, 299, 400, 300),
    ],
)
@pytest.mark.parametrize("label", [0, 1])
def test_labels_lie_completely_inside(box, label):
    # The whole label is there: its pixels span the same size as in the middle of the picture.
    # One pixel may be missing at each side, where an outline of the same colour lies under it.
    middle = label_pixels((300, 400), (195, 145, 205, 155), label=label)
    assert extent(label_pixels((300, 400), box, label=label)) == pytest.approx(extent(middle), abs=2)


def test_a_label_too_long_shrinks_to_its_score_and_then_to_nothing():
    wide, narrow, tiny = (label_pixels((80, width), (0, 40, width, 80), label=1) for width in (400, 60, 12))
    assert extent(narrow)[1] < extent(wide)[1] / 3
    assert not tiny.any()


def test_labels_make_way_for_each_other():
    boxes = [(50, 100, 250, 200), (50, 100, 250, 201)]
    one = np.count_nonzero(label_pixels((300, 300), boxes[0]))
    both = np.count_nonzero(label_pixels((300, 300), *boxes))
    assert both > 1.8 * one


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_colors_are_fixed_by_position(count):
    colors = instance_colors(count)
    assert (colors.shape, colors.dtype) == ((count, 3), np.uint8)
    np.testing.assert_array_equal(colors, instance_colors(1000)[:count])


def test_neighbouring_colors_differ_and_none_repeats():
    colors = instance_colors(300).astype(int)
    for distance, least in ((1, 150), (2, 90), (3, 50), (4, 150), (5, 35)):
        assert np.linalg.norm(colors[distance:] - colors[:-distance], axis=1).min() > least
    assert len(np.unique(colors[:100], axis=0)) == 100


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 30), np.uint8), r"shape \(20, 30\)"),
        (np.zeros((20, 30, 4), np.uint8), r"shape \(20, 30, 4\)"),
        (np.zeros((20, 30, 3), np.float32), "is float32"),
        (np.zeros((30, 20, 3), np.uint8), "is 30x20 .* one of 20x30"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(image, message):
    with pytest.raises(ImageError, match=message):
        draw_instances(image, instances_of((20, 30), (0, 0, 5, 5)))


@pytest.mark.parametrize("name", ["a.png", "b.JPG", "c.jpeg", "d.webp", "ordner/übung 图像.png"])
def test_a_saved_picture_comes_back(name, tmp_path):
    rgb = picture(20, 30)
    rgb[5:15, 5:25] = (220, 40, 30)
    path = tmp_path / name
    save_picture(path, rgb)
    save_picture(str(path), rgb)  # over the first one
    with Image.open(path) as opened:
        back = np.asarray(opened.convert("RGB")).astype(int)
    tolerance = 0 if path.suffix == ".png" else 12
    assert abs(back - rgb)[[2, 10], [2, 15]].max() <= tolerance
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["a.gif2", "a", "a.pdf"])
def test_an_unknown_suffix_names_the_known_ones(name, tmp_path):
    with pytest.raises(ImageError, match=r"expected one of \.jpg, \.jpeg, \.png, \.webp"):
        save_picture(tmp_path / name, picture(4, 4))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.png"
    path.mkdir()  # cannot be replaced by a file
    (path / "kept").touch()
    with pytest.raises(
        ImageError, match=r"a\.png: cannot be written \(Is a directory\); make room, or choose another place$"
    ):
        save_picture(path, picture(4, 4))
    assert [entry.name for entry in tmp_path.rglob("*")] == ["a.png", "kept"]
    with pytest.raises(ImageError, match="shape"):
        save_picture(tmp_path / "b.png", np.zeros((4, 4), np.uint8))


def test_labels_without_scores():
    before = picture(300, 300)
    found = instances_of((300, 300), (40, 60, 260, 260), scores=[0.9])
    drawn, other, scored = (
        draw_instances(before, instances_of((300, 300), (40, 60, 260, 260), scores=[score]), scores=shown)
        for score, shown in ((0.9, False), (0.1, False), (0.9, True))
    )
    np.testing.assert_array_equal(drawn, other)  # no score is to be seen
    assert changed(drawn, scored).any()
    assert changed(drawn, draw_instances(before, found, labels=False)).any()  # but a name is


def test_a_name_that_does_not_fit_is_left_out_without_a_score():
    before = picture(40, 24)
    found = instances_of((40, 24), (2, 20, 22, 38), labels=[1])
    drawn = draw_instances(before, found, labels=True, scores=False)
    np.testing.assert_array_equal(drawn, draw_instances(before, found, labels=False))
