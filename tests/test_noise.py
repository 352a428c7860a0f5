"""Noise by counters: how it is distributed, and what it depends on."""

import pytest
import torch

from hf_pmgaft.noise import CACHED, PURPOSES, draw_seeds, normal_noise, sample_seeds, uniform_noise


def test_noise_is_uniform_normal_and_independent():
    seeds = sample_seeds(0, 0, torch.arange(2000))
    u, n = uniform_noise(seeds, (3, 8, 8)), normal_noise(seeds, (192,))
    assert u.min() >= 0 and u.max() < 1
    ordered = u.flatten().sort().values
    grid = torch.arange(1, len(ordered) + 1) / len(ordered)
    assert (ordered - grid).abs().max() < 2 / len(ordered) ** 0.5  # Kolmogorov and Smirnov
    assert abs(n.mean()) < 0.01 and abs(n.std() - 1) < 0.01
    z = (u - 0.5) * 12**0.5
    others = (uniform_noise(seeds, (3, 8, 8), stream=1) - 0.5) * 12**0.5
    for a, b in ((z[1:], z[:-1]), (z[..., 1:], z[..., :-1]), (z[:, :, 1:], z[:, :, :-1]), (z, others)):
        assert abs((a * b).mean()) < 0.01
    assert abs(z.mean(dim=(1, 2, 3)).std() * 192**0.5 - 1) < 0.06


@pytest.mark.parametrize("noise", [uniform_noise, normal_noise])
def test_rows_may_each_have_a_stream_of_their_own(noise):
    seeds = sample_seeds(0, 0, torch.arange(4))
    streams = [0, 7, (9 << 20) + 1, (255 << 20) + 2]
    together = noise(seeds, (3, 2), torch.tensor(streams))
    apart = torch.cat([noise(seeds[[row]], (3, 2), stream) for row, stream in enumerate(streams)])
    assert torch.equal(together, apart)
    assert len({str(rows.tolist()) for rows in noise(seeds[[0]].expand(4), (3, 2), torch.tensor(streams))}) == 4


def test_noise_stays_what_it_was_and_rows_of_large_images_know_nothing_of_each_other():
    seeds = torch.tensor([5, 2**61 + 3])
    numbers = (uniform_noise(seeds, (3,)) * 2**24).tolist()
    assert numbers == [[10341984, 2357212, 12721569], [4484666, 7144715, 4786506]]

    seeds, shape = sample_seeds(0, 0, torch.arange(5)), (CACHED // 2 + 1,)  # hashed row by row
    for noise in (uniform_noise, normal_noise):
        apart = torch.cat([noise(seeds[[row]], shape, stream=2) for row in range(5)])
        assert torch.equal(noise(seeds, shape, stream=2), apart)
        assert noise(seeds, (7,), stream=2).equal(noise(seeds, shape, stream=2)[:, :7])
        assert noise(seeds[:0], shape).shape == (0, *shape)


def test_seeds_differ_between_runs_steps_and_samples():
    ids = torch.arange(500)
    seeds = torch.cat([sample_seeds(seed, step, ids) for seed in range(5) for step in range(20)])
    assert len(set(seeds.tolist())) == len(seeds)
    assert torch.equal(sample_seeds(3, 4, ids[[9, 2]]), sample_seeds(3, 4, ids)[[9, 2]])


def test_seeds_of_a_purpose_stay_whatever_comes_after_it():
    seeds = [draw_seeds(torch.tensor([7]), purpose, index=2).item() for purpose in PURPOSES]
    assert seeds[:3] == [3642282121487589616, 1495849088223186978, 848662170622937403]
    assert len(set(seeds)) == len(PURPOSES)
