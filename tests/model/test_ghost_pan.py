import pytest
import torch

from solov2.model.ghost_pan import GhostPAN

CHANNELS = (24, 116, 232, 464)


def features(hw: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn((1, channels, hw[0] // stride, hw[1] // stride), generator=generator)
        for channels, stride in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(("hw", "coarsest"), [((64, 128), (1, 2)), ((96, 160), (2, 3))])
def test_sizes(hw: tuple[int, int], coarsest: tuple[int, int]) -> None:
    with torch.no_grad():
        pyramid = GhostPAN(CHANNELS, 32).eval()(*features(hw))
    expected = [(hw[0] // stride, hw[1] // stride) for stride in (4, 8, 16, 32)]
    assert [tuple(level.shape) for level in pyramid] == [(1, 32, *size) for size in (*expected, coarsest)]


def test_information_goes_both_ways() -> None:
    """Every level but p2 depends on c3 and on c5; p2 on c2 alone."""
    torch.manual_seed(0)
    neck, before = GhostPAN(CHANNELS, 32).eval(), features((64, 64))
    with torch.no_grad():
        base = neck(*before)
        for changed, affected in ((0, {0}), (1, {1, 2, 3, 4}), (2, {1, 2, 3, 4}), (3, {1, 2, 3, 4})):
            other = [x + 1 if number == changed else x for number, x in enumerate(before)]
            found = {n for n, (a, b) in enumerate(zip(neck(*other), base, strict=True)) if not torch.equal(a, b)}
            assert found == affected
