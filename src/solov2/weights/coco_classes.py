"""COCO's 80 classes with their ids: what published weights were trained on, and do not say."""

from __future__ import annotations

from solov2.structures import Category

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""

UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Ids between 1 and 90 that none of the classes has."""

COCO_CATEGORIES = tuple(
    Category(number, name.strip())
    for number, name in zip(
        (number for number in range(1, 91) if number not in UNUSED_IDS),
        _NAMES.replace("\n", " ").split(","),
        strict=True,
    )
)
"""The classes by label, in the order of their ids."""
