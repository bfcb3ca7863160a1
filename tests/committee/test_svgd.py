"""The Stein direction against loops over its equation, and its fixed points against their closed forms."""

import math
import statistics

import pytest
import torch

from svgd_monai.committee import median_bandwidth, stein_kernel, svgd, svgd_direction


def drawn(members, size, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(members, size, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


def squared_distance(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def pair_distances(particles):
    """Squared distances of the pairs i < j, in plain Python."""
    rows = particles.double().tolist()
    return [squared_distance(rows[i], rows[j]) for i in range(len(rows)) for j in range(i + 1, len(rows))]


def loop_bandwidth(particles):
    return statistics.median(pair_distances(particles)) / math.log(len(particles))


def loop_direction(particles, scores, bandwidth=None, repulsion=1.0):
    """The equation of the design, term by term in double precision."""
    x, g = particles.double().tolist(), scores.double().tolist()
    members, size = len(x), len(x[0])
    h = bandwidth or (loop_bandwidth(particles) if members > 1 else 1.0)
    phi = [[0.0] * size for _ in range(members)]
    for i in range(members):
        for j in range(members):
            kernel = math.exp(-squared_distance(x[i], x[j]) / h)
            for d in range(size):
                push = 2.0 / h * kernel * (x[i][d] - x[j][d])
                phi[i][d] += (kernel * g[j][d] + repulsion * push) / members
    return torch.tensor(phi, dtype=torch.float64)


def ascend(particles, steps, rate, **options):
    """Follow φ under a unit Gaussian target."""
    for _ in range(steps):
        particles = particles + rate * svgd_direction(particles, -particles, **options)
    return particles


def assert_regular_simplex(particles, squared_norm):
    members = len(particles)
    edge = squared_norm * 2 * members / (members - 1)
    assert particles.square().sum(1).tolist() == pytest.approx([squared_norm] * members, rel=1e-6)
    assert pair_distances(particles) == pytest.approx([edge] * (members * (members - 1) // 2), rel=1e-6)


@pytest.mark.parametrize("repulsion", [1.0, 0.0, 2.5])
@pytest.mark.parametrize("bandwidth", [None, 3.0])
@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_equals_the_double_loop(members, bandwidth, repulsion):
    particles, scores = drawn(members, 7)
    phi = svgd_direction(particles, scores, bandwidth, repulsion)
    assert phi.dtype == torch.float64
    torch.testing.assert_close(phi, loop_direction(particles, scores, bandwidth, repulsion), rtol=1e-12, atol=1e-13)


def test_single_precision_equals_the_double_loop_of_the_same_numbers():
    particles, scores = drawn(4, 300, dtype=torch.float32)
    phi = svgd_direction(particles, scores)
    assert phi.dtype == torch.float32
    torch.testing.assert_close(phi.double(), loop_direction(particles, scores), rtol=1e-5, atol=1e-6)


def test_a_bandwidth_may_be_a_tensor():
    particles, scores = drawn(3, 5)
    torch.testing.assert_close(
        svgd_direction(particles, scores, torch.tensor(2.0)), loop_direction(particles, scores, 2.0)
    )


def test_particles_that_require_gradients_are_accepted():
    particles, scores = drawn(3, 5)
    phi = svgd_direction(torch.nn.Parameter(particles), scores)
    assert not phi.requires_grad
    torch.testing.assert_close(phi, loop_direction(particles, scores))


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.nan, torch.tensor(0.0)])
def test_a_bandwidth_that_is_not_above_0_is_refused(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be above 0"):
        svgd_direction(*drawn(3, 5), bandwidth)


def test_permuted_particles_give_permuted_directions():
    particles, scores = drawn(5, 6)
    order = torch.tensor([3, 0, 4, 1, 2])
    expected = svgd_direction(particles, scores)[order]
    torch.testing.assert_close(svgd_direction(particles[order], scores[order]), expected, rtol=1e-12, atol=1e-13)


def test_a_common_offset_of_ten_thousand_spreads_changes_nothing():
    spread, scores = drawn(5, 200, dtype=torch.float32)
    particles = spread + 1e4  # rounded to single precision: the reference takes the same rounded numbers
    gram = particles @ particles.T
    naive = gram.diagonal()[:, None] + gram.diagonal()[None] - 2 * gram
    true = torch.cdist(particles.double(), particles.double()).square()
    apart = ~torch.eye(5, dtype=torch.bool)
    assert ((naive - true).abs() / true)[apart].max() > 0.5  # what the test guards against

    torch.testing.assert_close(stein_kernel(particles).squared_distances[apart], true[apart], rtol=1e-6, atol=0)
    expected = loop_direction(particles, scores)
    torch.testing.assert_close(svgd_direction(particles, scores).double(), expected, rtol=1e-4, atol=1e-6)


def test_the_distance_of_two_close_particles_among_distant_ones_is_exact():
    particles, _ = drawn(4, 300, dtype=torch.float32)
    particles[1] = particles[0] + 1e-3 * particles[2]
    true = torch.cdist(particles.double(), particles.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert true[0, 1] < 1e-3 * true[0, 3]
    torch.testing.assert_close(stein_kernel(particles).squared_distances, true.square(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("distances", [svgd._from_pairs, svgd._from_products])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("left_out", [None, 0, 2])
def test_every_device_s_distances_and_norms_are_those_of_differences_in_double_precision(
    monkeypatch, distances, offset, left_out
):
    monkeypatch.setattr(svgd, "COLUMN_BLOCK", 60_000)
    particles = drawn(4, 200_001, dtype=torch.float32)[0] + offset
    particles[1] = particles[3] + 1e-3 * particles[2]
    with_origin = torch.cat([particles.double(), torch.zeros(1, 200_001)])
    expected = torch.stack([(with_origin - row).square().sum(1) for row in with_origin])
    healthy, present = None, torch.arange(5)
    if left_out is not None:
        particles[left_out] = torch.nan
        healthy, present = torch.arange(4) != left_out, present[present != left_out]
    found = distances(particles, healthy)
    torch.testing.assert_close(found[present][:, present], expected[present][:, present], rtol=2e-6, atol=0)


@pytest.mark.parametrize("members", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(4))
def test_the_bandwidth_is_the_true_median_over_pairs_divided_by_log_m(members, seed):
    particles, _ = drawn(members, 3, seed)
    assert median_bandwidth(particles).item() == pytest.approx(loop_bandwidth(particles), rel=1e-12)


def test_the_bandwidth_of_an_even_number_of_pairs_is_the_mean_of_the_middle_two():
    particles = torch.tensor([[0.0], [1.0], [3.0], [7.0]])  # squared distances 1, 4, 9, 16, 36, 49
    assert median_bandwidth(particles).item() == pytest.approx((9 + 16) / 2 / math.log(4))


def test_one_particle_follows_its_own_score():
    particles, scores = drawn(1, 9, dtype=torch.float32)
    assert torch.equal(svgd_direction(particles, scores), scores)
    kernel = stein_kernel(particles)
    assert kernel.off_diagonal_mean().item() == 0
    assert kernel.mean_distance().item() == 0


@pytest.mark.parametrize("value", [0.0, 0.3, 1e-20, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("members", [2, 3, 6])
def test_coincident_particles_follow_the_mean_score(members, dtype, value):
    particles = torch.full((members, 8), value, dtype=dtype)
    scores = drawn(members, 8, dtype=dtype)[1]
    phi = svgd_direction(particles, scores)
    assert phi.isfinite().all()
    # 2/h times the rounding of the particles' mean remains in single precision.
    tolerance = 0.1 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(phi, scores.mean(0).expand_as(scores), rtol=0, atol=tolerance)


def test_two_coincident_particles_among_others_stay_finite():
    particles, scores = drawn(4, 6)
    particles[1] = particles[0]
    phi = svgd_direction(particles, scores)
    torch.testing.assert_close(phi, loop_direction(particles, scores), rtol=1e-12, atol=1e-13)


def test_a_huge_bandwidth_gives_everyone_the_mean_gradient():
    particles, scores = drawn(4, 6)
    phi = svgd_direction(particles, scores, 1e15)
    torch.testing.assert_close(phi, scores.mean(0).expand_as(scores), rtol=1e-9, atol=1e-12)


def test_a_tiny_bandwidth_gives_everyone_a_share_of_the_own_gradient():
    particles, scores = drawn(4, 6)
    torch.testing.assert_close(svgd_direction(particles, scores, 1e-9), scores / 4, rtol=1e-12, atol=1e-14)


def test_without_repulsion_the_scores_alone_are_mixed():
    particles, scores = drawn(4, 6)
    kernel = torch.exp(-torch.cdist(particles, particles).square() / loop_bandwidth(particles))
    torch.testing.assert_close(svgd_direction(particles, scores, repulsion=0.0), kernel @ scores / 4)
    assert svgd_direction(particles, torch.zeros_like(scores), repulsion=0.0).abs().max() == 0


@pytest.mark.parametrize(("members", "size"), [(2, 1), (2, 6), (3, 2), (3, 10), (5, 4), (5, 12)])
def test_a_unit_gaussian_ends_in_a_simplex_of_squared_norm_log_m(members, size):
    particles = ascend(drawn(members, size, seed=1)[0], 800, 0.5)
    assert_regular_simplex(particles, math.log(members))


@pytest.mark.parametrize("bandwidth", [0.5, 2.0, 10.0])
@pytest.mark.parametrize(("members", "size"), [(2, 3), (4, 3), (4, 8)])
def test_a_unit_gaussian_at_a_fixed_bandwidth_ends_in_the_closed_form(members, size, bandwidth):
    particles = ascend(drawn(members, size, seed=2)[0], 1500, 0.3, bandwidth=bandwidth)
    expected = bandwidth * (members - 1) / (2 * members) * math.log(1 + 2 * members / bandwidth)
    assert_regular_simplex(particles, expected)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_under_a_flat_likelihood_every_distance_grows(members):
    particles, _ = drawn(members, 20)
    moved = particles + 0.1 * svgd_direction(particles, torch.zeros_like(particles))
    assert all(b > a for a, b in zip(pair_distances(particles), pair_distances(moved), strict=True))


@pytest.mark.parametrize("shapes", [((3, 4), (3, 5)), ((3, 4), (2, 4)), ((4,), (4,)), ((2, 3, 4), (2, 3, 4))])
def test_shapes_that_are_not_two_equal_matrices_are_refused(shapes):
    with pytest.raises(ValueError, match="shape"):
        svgd_direction(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("shape", [(4,), (0, 4)])
def test_the_bandwidth_of_anything_but_a_matrix_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        median_bandwidth(torch.zeros(shape))


@pytest.mark.parametrize("block", [1, 7, 24, 1000])
def test_blocks_of_columns_equal_one_block(monkeypatch, block):
    particles, scores = drawn(4, 50)
    expected = svgd_direction(particles, scores)
    monkeypatch.setattr(svgd, "COLUMN_BLOCK", block)
    torch.testing.assert_close(svgd_direction(particles, scores), expected, rtol=1e-12, atol=1e-14)


def test_autocast_changes_not_a_bit():
    particles, scores = drawn(5, 400, dtype=torch.float32)
    expected = svgd_direction(particles, scores)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = particles @ scores.T
        assert rounded.dtype == torch.bfloat16  # autocast is on
        assert torch.equal(svgd_direction(particles, scores), expected)


@pytest.fixture
def matmul_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_reduced_matmul_precision_changes_not_a_bit_and_stays_as_it_was(matmul_precision, precision):
    particles, scores = drawn(64, 4096, dtype=torch.float32)
    torch.set_float32_matmul_precision("highest")
    expected = svgd_direction(particles, scores)
    torch.set_float32_matmul_precision(precision)
    assert torch.equal(svgd_direction(particles, scores), expected)
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cuda.matmul.allow_tf32


def test_the_precision_comes_back_after_an_error(matmul_precision):
    torch.set_float32_matmul_precision("medium")
    with pytest.raises(ZeroDivisionError), svgd.full_precision(torch.device("cpu")):
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "medium"


if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch 2.9 and newer, which forbids mixing it with the old

    def test_the_newer_switch_of_tf32_is_understood_and_stays_as_it_was():
        switch = torch.backends.cuda.matmul
        particles, scores = drawn(3, 10)
        before = switch.fp32_precision
        switch.fp32_precision = "tf32"
        try:
            with svgd.full_precision(torch.device("cpu")):
                assert switch.fp32_precision == "ieee"
            torch.testing.assert_close(svgd_direction(particles, scores), loop_direction(particles, scores))
            assert switch.fp32_precision == "tf32"
        finally:
            switch.fp32_precision = before
