import time

import pytest
import torch

from solov2.benchmarking.timing import Clock, Spread


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0], (2.0, 2.0, 2.0)), ([1.0, 3.0], (2.0, 1.5, 2.5)), ([5.0, 1.0, 2.0, 4.0, 3.0], (3.0, 2.0, 4.0))],
)
def test_spread(values: list[float], expected: tuple[float, float, float]) -> None:
    assert tuple(Spread.of(values)) == expected
    assert tuple(Spread.of(values).scaled(10)) == tuple(10 * value for value in expected)


def test_stages_add_up() -> None:
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        with clock.stage("a"):
            time.sleep(0.002)
    with clock.stage("b"):
        pass
    assert list(clock.seconds) == ["a", "b"]
    assert clock.seconds["a"] >= 0.004 > clock.seconds["b"] >= 0
