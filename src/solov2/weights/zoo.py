"""The published SOLOv2 models: where their weights are, under which licence, and what was published about them.

One table, and look-ups in it. Nothing here opens a file or a connection: :mod:`solov2.weights.download` does.
AP is what the publishers state. Parameters and GMACs are counted on the models of this package.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePosixPath

from solov2.errors import WeightsError

PADDLEDETECTION = "PaddleDetection"
AUTHORS = "authors (WXinlong/SOLO)"
ADELAIDET = "AdelaiDet"
OURS = "this package"

APACHE = "Apache-2.0"
NON_COMMERCIAL = "non-commercial (academic use under BSD-2-Clause; commercial use by request)"


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """One published model.

    Attributes:
        name: of the model and of the shipped recipe that builds it.
        source: who published it.
        licence: of the weights.
        url: of the weights; empty for those inside the package.
        ap: published COCO mask AP in per cent, averaged over IoU 0.5 to 0.95.
        split: the pictures it was measured on, in the publisher's word.
        parameters: of the model here, without the running statistics of batch norms. Where heads are
            deformable it has biases; the authors' files have none, and these stay zero.
        gmacs: 10⁹ multiply-adds of all convolutions on one picture of ``test_hw``, a deformable one
            counted with its offsets; left out are interpolation, norms, and the product of kernels and
            mask features, which depends on how much is found.
        test_hw: height and width of a picture at the recipe's test scale with sides 3:5, padded to
            multiples of 32 (for the models inside the package a square one).
        aliases: other names.
    """

    name: str
    source: str
    licence: str
    url: str
    ap: float
    split: str
    parameters: int
    gmacs: float
    test_hw: tuple[int, int]
    aliases: tuple[str, ...] = ()

    @property
    def recipe(self) -> str:
        """Name of the shipped recipe."""
        return self.name

    @property
    def file_name(self) -> str:
        """The published file's name; empty for weights inside the package."""
        return PurePosixPath(self.url).name

    @property
    def shipped(self) -> bool:
        """Whether the weights are inside the package."""
        return not self.url

    @property
    def commercial(self) -> bool:
        """Whether the licence allows commercial use."""
        return self.licence != NON_COMMERCIAL

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` is an alias or the published file's name, with or without its suffix."""
        published = (self.file_name, PurePosixPath(self.url).stem)
        return name in self.aliases or (not self.shipped and name in published)


def find_entry(name: str) -> ZooEntry | None:
    """The entry with this name, alias or published file name, also without suffix; None if there is none.

    Raises:
        WeightsError: if several published files have that name.
    """
    for entry in ZOO:
        if entry.name == name:
            return entry
    found = [entry for entry in ZOO if entry.answers_to(name)]
    if len(found) > 1:
        choices = ", ".join(f"{entry.name} ({entry.source})" for entry in found)
        raise WeightsError(f"{name!r} is the name of {len(found)} published files; use one of {choices}")
    return found[0] if found else None


def zoo_entry(name: str) -> ZooEntry:
    """As :func:`find_entry`, for a name that has to exist.

    Raises:
        WeightsError: if it does not, or is the name of several.
    """
    entry = find_entry(name)
    if entry is None:
        names = [entry.name for entry in ZOO]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the names are {', '.join(names)}"
        raise WeightsError(f"{name!r} is not in the zoo; {hint}")
    return entry


def entry_of_url(url: str) -> ZooEntry | None:
    """The entry whose weights are at this address; None if there is none."""
    return next((entry for entry in ZOO if entry.url and entry.url == url), None)


def published_with(framework: str, stem: str = "") -> tuple[ZooEntry, ...]:
    """The published models whose tensors have a framework's names, those whose file has the name ``stem`` first."""
    entries = [entry for entry in ZOO if entry.source in PUBLISHERS.get(framework, ())]
    return tuple(sorted(entries, key=lambda entry: PurePosixPath(entry.file_name).stem != stem))


PUBLISHERS = {
    "paddledetection": (PADDLEDETECTION,),
    "solo": (AUTHORS,),
    "mmdetection": (AUTHORS,),  # the same networks under names of its own
    "detectron2": (ADELAIDET,),
    "solov2": (PADDLEDETECTION, AUTHORS),
}
"""Whose models are published with whose names."""

PADDLE_HOST = "https://paddledet.bj.bcebos.com/"
"""What ``ppdet://`` stands for in PaddleDetection's recipes."""

_AUTHORS_FOLDER = "https://huggingface.co/xinlongwang/SOLO/resolve/main/"
_ADELAIDET_FOLDER = "https://huggingface.co/ZjuCv/AdelaiDet/resolve/main/"

_HW_800 = (800, 1344)
_HW_512 = (512, 864)
_HW_448 = (448, 768)


def _paddle(name: str, ap: float, parameters: int, gmacs: float, test_hw: tuple[int, int] = _HW_800) -> ZooEntry:
    url = f"{PADDLE_HOST}models/{name}.pdparams"
    return ZooEntry(name, PADDLEDETECTION, APACHE, url, ap, "val2017", parameters, gmacs, test_hw)


def _authors(
    name: str, file: str, ap: float, parameters: int, gmacs: float, test_hw: tuple[int, int] = _HW_800
) -> ZooEntry:
    url = f"{_AUTHORS_FOLDER}{file}.pth"
    return ZooEntry(name, AUTHORS, NON_COMMERCIAL, url, ap, "minival", parameters, gmacs, test_hw)


def _adelaidet(name: str, file: str, ap: float, parameters: int, gmacs: float) -> ZooEntry:
    url = f"{_ADELAIDET_FOLDER}{file}.pth"
    return ZooEntry(name, ADELAIDET, NON_COMMERCIAL, url, ap, "not stated", parameters, gmacs, _HW_800)


ZOO = (
    _paddle("solov2_r50_fpn_1x_coco", 35.5, 46_592_912, 252.6),
    _paddle("solov2_r50_fpn_3x_coco", 38.0, 46_592_912, 252.6),
    _paddle("solov2_r101_vd_fpn_3x_coco", 42.7, 68_753_598, 355.9),
    _paddle("solov2_r50_enhance_coco", 39.0, 33_880_939, 97.3, _HW_512),
    _authors("solov2_r50_fpn_8gpu_1x", "SOLOv2_R50_1x", 34.8, 46_592_912, 252.6),
    _authors("solov2_r50_fpn_8gpu_3x", "SOLOv2_R50_3x", 37.5, 46_592_912, 252.6),
    _authors("solov2_r101_fpn_8gpu_3x", "SOLOv2_R101_3x", 39.1, 65_585_040, 332.1),
    _authors("solov2_r101_dcn_fpn_8gpu_3x", "SOLOv2_R101_DCN_3x", 41.4, 68_734_366, 350.7),
    _authors("solov2_x101_dcn_fpn_8gpu_3x", "SOLOv2_X101_DCN_3x", 42.4, 113_425_822, 540.3),
    _authors("solov2_light_448_r18_fpn_8gpu_3x", "SOLOv2_LIGHT_448_R18_3x", 29.6, 18_271_760, 51.5, _HW_448),
    _authors("solov2_light_448_r34_fpn_8gpu_3x", "SOLOv2_LIGHT_448_R34_3x", 32.0, 28_379_920, 64.2, _HW_448),
    _authors("solov2_light_448_r50_fpn_8gpu_3x", "SOLOv2_LIGHT_448_R50_3x", 33.7, 31_340_560, 69.1, _HW_448),
    _authors("solov2_light_512_dcn_r50_fpn_8gpu_3x", "SOLOv2_LIGHT_512_DCN_R50_3x", 36.4, 33_185_566, 91.7, _HW_512),
    _adelaidet("adelaidet_R50_3x", "SOLOv2_R50_3x", 37.6, 46_592_912, 247.6),
    _adelaidet("adelaidet_R101_3x", "SOLOv2_R101_3x", 39.0, 65_585_040, 327.2),
    ZooEntry("solov2_nano_coco", OURS, APACHE, "", 25.0, "own validation", 1_796_028, 4.1, (448, 448)),
    ZooEntry(
        "solov2_nano_nuclei",
        OURS,
        APACHE,
        "",
        58.7,
        "own validation",
        1_562_521,
        2.9,
        (512, 512),
        ("nuclei",),
    ),
)
"""The models that PaddleDetection, the paper's authors and AdelaiDet published, and the two inside the package."""
