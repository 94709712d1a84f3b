import pytest
import torch

from solov2.model.separable_head import SeparableHead


def pyramid(hw: tuple[int, int] = (96, 160), channels: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn((2, channels, -(-hw[0] // stride), -(-hw[1] // stride)), generator=generator)
        for stride in (4, 8, 16, 32, 64)
    ]


def test_grids_are_the_maps() -> None:
    head = SeparableHead(3, strides=(8, 16, 32, 64), channels=32, kernel_channels=7).eval()
    with torch.no_grad():
        logits, kernels = head(*pyramid())
    sizes = [(12, 20), (6, 10), (3, 5), (2, 3)]
    assert [tuple(level.shape) for level in logits] == [(2, 3, *size) for size in sizes]
    assert [tuple(level.shape) for level in kernels] == [(2, 7, *size) for size in sizes]


def test_each_level_reads_the_map_of_its_stride() -> None:
    torch.manual_seed(0)
    head, maps = SeparableHead(3, strides=(8, 16), channels=32, kernel_channels=7).eval(), pyramid()
    with torch.no_grad():
        base = head(*maps)
        changed = head(*(x + 1 if number == 2 else x for number, x in enumerate(maps)))
    for before, after in zip(base, changed, strict=True):
        assert torch.equal(before[0], after[0])
        assert not torch.equal(before[1], after[1])


def test_an_untrained_head_scores_one_percent() -> None:
    head = SeparableHead(80, channels=32).eval()
    with torch.no_grad():
        logits, _ = head(*pyramid())
    for level in logits:
        assert level.sigmoid().mean().item() == pytest.approx(0.01, rel=0.3)
