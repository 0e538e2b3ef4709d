"""Lanczos against dense eigenvalues and ARPACK, in float64, on matrices whose spectra are planted."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from welltuned.curvature.lanczos import Effort, extremes

EXACT = Effort(tolerance=1e-10, max_products=400)


def matrix(values, seed):
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    size = len(values)
    Q, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return Q @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ Q.T


def spectrum(kind, size=60):
    """Some spectra: spread, with both ends apart, with a cluster at the top, negative, or nearly all zero."""
    rng = np.random.default_rng(size)
    bulk = rng.normal(size=size)
    if kind == "apart":
        bulk[0], bulk[1] = 30.0, -20.0
    elif kind == "cluster":
        bulk[:5] = 10.0 - 1e-3 * np.arange(5)
    elif kind == "negative":
        bulk = -np.abs(bulk) - 1
    elif kind == "low rank":
        bulk = np.array([5.0, -2.0, 1.0, *np.zeros(size - 3)])
    return bulk


KINDS = ("spread", "apart", "cluster", "negative", "low rank")


def products(matrices):
    """The product of several matrices of one size with a vector each."""
    stacked = torch.stack(matrices)
    return lambda v, numbers: torch.einsum("npq,nq->np", stacked[list(numbers)], v)


def starts(count, size, seed=3):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_both_ends_are_those_of_the_dense_matrices():
    matrices = [matrix(spectrum(kind), seed) for seed, kind in enumerate(KINDS)]
    for kind, H, found in zip(KINDS, matrices, extremes(products(matrices), starts(5, 60), effort=EXACT), strict=True):
        values = torch.linalg.eigvalsh(H)
        assert found.converged, kind
        assert found.largest.value == pytest.approx(values[-1].item(), abs=1e-8)
        assert found.smallest.value == pytest.approx(values[0].item(), abs=1e-8)


@pytest.mark.parametrize("kind", ["spread", "apart", "negative"])
def test_it_agrees_with_arpack_on_the_product_alone(kind):
    H = matrix(spectrum(kind), 7)
    (found,) = extremes(products([H]), starts(1, 60), effort=EXACT)
    operator = LinearOperator((60, 60), matvec=lambda v: H.numpy() @ v, dtype=np.float64)
    values = eigsh(operator, k=2, which="BE", return_eigenvectors=False)
    assert (found.smallest.value, found.largest.value) == pytest.approx(tuple(sorted(values)), abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_products", [3, 6, 10, 20])
def test_an_eigenvalue_lies_within_the_residual_of_a_ritz_value_however_early_it_stops(kind, num_products):
    H = matrix(spectrum(kind), 11)
    values = torch.linalg.eigvalsh(H)
    (found,) = extremes(products([H]), starts(1, 60), effort=Effort(tolerance=0.0, max_products=num_products))
    for end in (found.largest, found.smallest):
        assert (values - end.value).abs().min().item() <= end.residual + 1e-9
    assert values[0] - 1e-9 <= found.smallest.value <= found.largest.value <= values[-1] + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_what_stops_is_within_its_tolerance(seed):
    """The bound of the gap is taken between Ritz values, so this is measured: spectra like a Hessian's, 1 %."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.exponential(size=6) * 5, -rng.exponential(size=4), rng.normal(size=190) * 0.05])
    H = matrix(values, seed)
    (found,) = extremes(products([H]), starts(1, 200, seed), effort=Effort(tolerance=1e-2))
    assert found.converged and found.num_products < 40
    scale = np.abs(values).max()
    assert abs(found.largest.value - values.max()) <= 1.5e-2 * scale
    assert abs(found.smallest.value - values.min()) <= 1.5e-2 * scale


@pytest.mark.parametrize("kind", ["spread", "cluster"])
def test_a_bounded_number_of_vectors_finds_the_same_ends(kind):
    """With 12 vectors kept it restarts several times; a recurrence that forgot them would not converge to this."""
    H = matrix(spectrum(kind, 200), 5)
    values = torch.linalg.eigvalsh(H)
    effort = Effort(tolerance=1e-9, max_products=1000, max_vectors=12)
    (found,) = extremes(products([H]), starts(1, 200), effort=effort)
    assert found.converged and found.num_products > 12
    assert found.largest.value == pytest.approx(values[-1].item(), abs=1e-7)
    assert found.smallest.value == pytest.approx(values[0].item(), abs=1e-7)


def test_without_enough_products_it_says_so():
    (found,) = extremes(products([matrix(spectrum("spread"), 1)]), starts(1, 60), effort=Effort(1e-8, max_products=6))
    assert not found.converged and found.num_products == 6
    assert found.largest.error > 1e-8


def test_a_space_that_the_matrix_does_not_leave_ends_the_recurrence():
    """Rank 3: after 4 products at most nothing new can come. The zero matrix is done after one."""
    low, zero = matrix(spectrum("low rank"), 2), torch.zeros(60, 60, dtype=torch.float64)
    found = extremes(products([low, zero]), starts(2, 60), effort=EXACT)
    assert found[0].num_products <= 5 and found[0].largest.value == pytest.approx(5.0)
    assert found[0].smallest.value == pytest.approx(-2.0)
    assert (found[1].num_products, found[1].largest.value, found[1].smallest.value) == (1, 0.0, 0.0)


def test_a_recurrence_is_the_same_alone_and_beside_others():
    matrices = [matrix(spectrum(kind), seed) for seed, kind in enumerate(KINDS)]
    start = starts(5, 60)
    together = extremes(products(matrices), start, effort=Effort(1e-6))
    for number, H in enumerate(matrices):
        (alone,) = extremes(products([H]), start[number : number + 1], effort=Effort(1e-6))
        assert alone.num_products == together[number].num_products
        assert alone.largest.value == pytest.approx(together[number].largest.value, rel=1e-12)


def test_padding_that_starts_at_zero_stays_out():
    """A matrix of 20 padded to 60 with a block that a start of zeros there never sees."""
    inner = matrix(spectrum("spread", 20), 4)
    H = torch.zeros(60, 60, dtype=torch.float64)
    H[:20, :20], H[20:, 20:] = inner, 1e3 * torch.eye(40, dtype=torch.float64)
    start = starts(1, 60)
    start[:, 20:] = 0
    (found,) = extremes(products([H]), start, effort=EXACT)
    assert found.largest.value == pytest.approx(torch.linalg.eigvalsh(inner)[-1].item(), abs=1e-8)


def test_only_the_largest_is_waited_for_where_only_it_is_wanted():
    """A long tail of small eigenvalues: the smallest takes many more products than the largest."""
    values = np.concatenate([[100.0, 50.0], np.linspace(0, 1, 198)])
    H = matrix(values, 9)
    effort = Effort(tolerance=1e-6, max_products=400)
    (one,) = extremes(products([H]), starts(1, 200), both=False, effort=effort)
    (two,) = extremes(products([H]), starts(1, 200), both=True, effort=effort)
    assert one.largest.value == pytest.approx(100.0) and two.smallest.value == pytest.approx(0.0, abs=1e-3)
    assert one.num_products < two.num_products
