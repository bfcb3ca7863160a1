"""The step of the committee: −φ in place, its balance, and its clip."""

import math

import pytest
import torch

from svgd_monai.committee import PosteriorStep, svgd, svgd_direction
from svgd_monai.errors import SettingsError


def drawn(members=4, size=30, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(members, size, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


def terms(particles, gradients, scale, prior_std, repulsion):
    """Drive, prior and repulsion of −φ from explicit kernels and sums over members, in float64."""
    members = len(particles)
    squared = [[float((a - b).square().sum()) for b in particles] for a in particles]
    pairs = sorted(squared[i][j] for i in range(members) for j in range(i + 1, members))
    middle = len(pairs) // 2
    median = pairs[middle] if len(pairs) % 2 else (pairs[middle - 1] + pairs[middle]) / 2
    h = median / math.log(members)
    drive, prior, push = (torch.zeros_like(particles) for _ in range(3))
    for i in range(members):
        for j in range(members):
            kernel = math.exp(-squared[i][j] / h)
            drive[i] += scale * kernel * gradients[j] / members
            prior[i] += kernel * particles[j] / prior_std**2 / members if prior_std else 0
            push[i] += repulsion * 2 / h * kernel * (particles[i] - particles[j]) / members
    distances = [math.sqrt(squared[i][j]) for i in range(members) for j in range(i + 1, members)]
    kernels = [math.exp(-s / h) for s in pairs]
    return drive, prior, push, h, sum(distances) / len(distances), sum(kernels) / len(kernels)


def root_mean_square_norm(rows):
    return math.sqrt(sum(float(row.norm()) ** 2 for row in rows) / len(rows))


@pytest.mark.parametrize("prior_std", [None, 1.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("repulsion", [1.0, 0.0, 3.0])
def test_gradients_become_minus_the_stein_direction_of_the_scores(prior_std, scale, repulsion):
    particles, gradients = drawn()
    scores = -scale * gradients - (particles / prior_std**2 if prior_std else 0)
    expected = -svgd_direction(particles, scores, repulsion=repulsion)
    before = particles.clone()
    PosteriorStep("svgd", scale, prior_std, repulsion)(particles, gradients)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(particles, before)


@pytest.mark.parametrize("prior_std", [None, 2.0])
def test_the_balance_holds_the_norms_of_the_terms(prior_std):
    particles, gradients = drawn()
    drive, prior, push, h, distance, kernel = terms(particles, gradients, 5.0, prior_std, 2.0)
    balance = PosteriorStep("svgd", 5.0, prior_std, 2.0)(particles, gradients)
    torch.testing.assert_close(gradients, drive + prior - push, rtol=1e-11, atol=1e-12)
    assert balance.drive.item() == pytest.approx(root_mean_square_norm(drive))
    assert balance.prior.item() == pytest.approx(root_mean_square_norm(prior))
    assert balance.repulsion.item() == pytest.approx(root_mean_square_norm(push))
    assert balance.bandwidth.item() == pytest.approx(h)
    assert balance.distance.item() == pytest.approx(distance)
    assert balance.kernel.item() == pytest.approx(kernel)
    assert balance.norm.item() == pytest.approx(sum(float(x.norm()) for x in particles) / len(particles))
    assert balance.clipped.item() == 0
    assert all(value.shape == () and value.dtype == torch.float64 for value in balance)


@pytest.mark.parametrize("prior_std", [None, 0.3])
@pytest.mark.parametrize("size", [50, 200_000])
def test_the_balance_of_an_ensemble_holds_the_norms_of_its_terms(prior_std, size):
    particles, gradients = drawn(5, size, torch.float32)
    drive = 20.0 * gradients.double()
    prior = particles.double() / prior_std**2 if prior_std else torch.zeros_like(drive)
    balance = PosteriorStep("ensemble", 20.0, prior_std)(particles, gradients)
    assert balance.drive.item() == pytest.approx(root_mean_square_norm(drive), rel=2e-6)
    assert balance.prior.item() == pytest.approx(root_mean_square_norm(prior), rel=2e-6)
    assert balance.repulsion.item() == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("likelihood_scale", 0), ("likelihood_scale", math.inf), ("prior_std", 1e-200), ("prior_std", 1e-20),
     ("prior_std", 1e-9), ("max_norm", 1e7), ("prior_std", math.nan),
     ("max_norm", -1), ("repulsion", math.nan), ("repulsion", -math.inf)],
)  # fmt: skip
def test_a_number_that_no_step_can_be_made_with_is_refused(key, value):
    with pytest.raises(SettingsError, match=rf"^{key}: "):
        PosteriorStep(**{key: value})


@pytest.mark.parametrize("key", ["likelihood_scale", "prior_std", "max_norm"])
@pytest.mark.parametrize("value", [1e-6, 1e6])
def test_a_step_with_the_least_and_the_greatest_numbers_is_finite_in_single_precision(key, value):
    particles, gradients = drawn(size=1_000_000, dtype=torch.float32)
    balance = PosteriorStep(**{"prior_std": 1.0, key: value})(particles, gradients)
    assert torch.linalg.vector_norm(gradients, dim=1).isfinite().all()
    assert all(bool(number.isfinite()) for number in balance)


def test_blocks_of_columns_equal_one_block(monkeypatch):
    particles, gradients = drawn()
    whole, pieces = gradients.clone(), gradients.clone()
    step = PosteriorStep(prior_std=2.0, max_norm=1.0)
    expected = step(particles, whole)
    monkeypatch.setattr(svgd, "COLUMN_BLOCK", 7)
    balance = step(particles, pieces)
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(torch.stack(list(balance)), torch.stack(list(expected)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("committee", ["svgd", "ensemble"])
def test_one_particle_with_a_flat_prior_keeps_its_gradient_to_the_bit(committee):
    particles, gradients = drawn(1, 1000, torch.float32)
    expected = gradients.clone()
    balance = PosteriorStep(committee)(particles, gradients)
    assert torch.equal(gradients, expected)
    assert balance.repulsion.item() == balance.distance.item() == balance.prior.item() == 0


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_an_ensemble_descends_its_own_posterior_to_the_bit(scale):
    particles, gradients = drawn(4, 500, torch.float32)
    expected = scale * gradients + 0.25 * particles  # powers of two: no rounding but the sum's
    balance = PosteriorStep("ensemble", scale, prior_std=2.0, repulsion=5.0)(particles, gradients)
    assert torch.equal(gradients, expected)
    assert balance.repulsion.item() == 0


def test_members_of_an_ensemble_do_not_see_one_another():
    particles, gradients = drawn(3, 50, torch.float32)
    step = PosteriorStep("ensemble", prior_std=0.7)
    first, second = gradients.clone(), gradients.clone()
    second[1] *= -3
    others = particles.clone()
    others[1] += 1
    step(particles, first)
    step(others, second)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[2], second[2])
    assert not torch.equal(first[1], second[1])


def test_members_of_a_stein_committee_do_see_one_another():
    particles, gradients = drawn(3, 50)
    changed = gradients.clone()
    changed[1] *= -3
    for rows in (gradients, changed):
        PosteriorStep("svgd")(particles, rows)
    assert not torch.allclose(gradients[0], changed[0])


def test_the_clip_scales_long_directions_after_mixing_and_reports_their_share():
    particles, gradients = drawn(4)
    gradients[2] *= 100  # mixed into all of them; a clip before mixing would change the others' drive
    free, clipped = gradients.clone(), gradients.clone()
    unclipped = PosteriorStep(prior_std=1.0)(particles, free)
    lengths = free.norm(dim=1)
    limit = float(lengths.sort().values[1:3].mean())
    balance = PosteriorStep(prior_std=1.0, max_norm=limit)(particles, clipped)
    for row, whole, length in zip(clipped, free, lengths, strict=True):
        torch.testing.assert_close(row, whole * min(1.0, limit / float(length)), rtol=1e-12, atol=1e-14)
    assert balance.clipped.item() == 0.5
    assert balance.drive.item() == unclipped.drive.item()  # the balance is that of φ before its clip


def test_the_clip_of_a_direction_of_length_zero_is_zero():
    particles = torch.ones(1, 5)
    gradients = torch.zeros(1, 5)
    balance = PosteriorStep(max_norm=1.0)(particles, gradients)
    assert torch.equal(gradients, torch.zeros(1, 5))
    assert balance.clipped.item() == 0


def test_coincident_particles_stay_finite():
    particles, gradients = torch.zeros(3, 6), torch.ones(3, 6)
    balance = PosteriorStep(prior_std=1.0)(particles, gradients)
    torch.testing.assert_close(gradients, torch.ones(3, 6))
    assert torch.stack(list(balance)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("committee", "stein"),
        ("likelihood_scale", 0.0),
        ("likelihood_scale", -1.0),
        ("likelihood_scale", math.nan),
        ("prior_std", 0.0),
        ("prior_std", -2.0),
        ("max_norm", 0.0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=rf"^{name}: .*{value!r}"):
        PosteriorStep(**{name: value})
