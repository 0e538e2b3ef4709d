"""Bfloat16, packed against alone: another rounding, but one that is small beside half a percent and another seed."""

import pytest
from scripts import measure_bfloat16
from scripts.measure_bfloat16 import LARGEST, Compared


def test_packed_is_alone_within_half_a_percent_and_the_seed_noise():
    configs = measure_bfloat16.configs_of("abacus-small", (1e-3, 5e-3), seeds=3, samples=128, validation=32)
    found = measure_bfloat16.compare(configs, threads=1)
    assert [len(one.alone) for one in found] == [3, 3]
    for one in found:
        assert one.largest_difference <= LARGEST
        assert one.largest_difference < one.seed_noise


def test_differences_and_noise_are_relative():
    one = Compared(1e-3, (1.0, 2.02), (1.01, 2.0))
    assert one.largest_difference == pytest.approx(0.02 / 2.0)
    assert one.seed_noise == pytest.approx(0.99 / 2**0.5 / 1.505)
