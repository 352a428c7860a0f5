"""Counter-based noise: every number is a hash of (seed, stream, position), on any device and in any batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# What draws are for. Those of one purpose know nothing of those of another. New ones go to the end: a place is a seed.
PURPOSES = ("attack", "choice", "verdict", "selection", "estimation")
CACHED = 2**15  # numbers that a processor hashes at a time
_MASK = 0xFFFFFFFF


def sample_seeds(seed: int, step: int | torch.Tensor, sample_ids: torch.Tensor) -> torch.Tensor:
    """Makes one seed per sample from the run's seed, the step or epoch, and the sample's id.

    Args:
        seed (`int`): The same for the whole batch.
        step (`int` or `torch.Tensor`): One for the whole batch, or one of each sample: `[B]`, int64.
        sample_ids (`torch.Tensor`): `[B]`, int64.

    Returns:
        `torch.Tensor`: `[B]`, int64, from 0 to 2^62.

    Example:
        >>> seeds = sample_seeds(seed=0, step=3, sample_ids=torch.tensor([7, 8]))
        >>> torch.equal(seeds[1:], sample_seeds(seed=0, step=3, sample_ids=torch.tensor([8])))
        True
    """
    ids = sample_ids.long()

    # On the host: a tensor of them would be copied to the device, which makes the host wait.
    run = _fold(seed)
    moment = _fold(step)
    key = _mix(run * 3 + moment * 5 + 1)

    low = _mix(_fold(ids) + key)
    high = _mix(_fold(ids + 0x5851F42D) + _mix(key + moment + 0x14057B7E))
    return ((high & 0x3FFFFFFF) << 32) | low


def draw_seeds(seeds: torch.Tensor, purpose: str, index: int | torch.Tensor = 0) -> torch.Tensor:
    """Makes the seeds of one fresh draw for each image, from which all of its noise follows.

    Args:
        seeds (`torch.Tensor`): `[B]`, int64, one per image.
        purpose (`str`): One of `PURPOSES`: an attack, the choice among its points, the verdict on them, or what
            picks a class to certify and bounds its probability.
        index (`int` or `torch.Tensor`): Which draw of that purpose; one for all images, or one of each: `[B]`, int64.

    Example:
        >>> seeds = torch.arange(2)
        >>> attack, verdict = draw_seeds(seeds, "attack"), draw_seeds(seeds, "verdict")
        >>> set(attack.tolist()) & set(verdict.tolist())
        set()
    """
    return sample_seeds(1 + PURPOSES.index(purpose), index, seeds)


def uniform_noise(seeds: torch.Tensor, shape: Sequence[int], stream: int | torch.Tensor = 0) -> torch.Tensor:
    """Draws uniform numbers in [0,1) with 24 bits.

    Args:
        seeds (`torch.Tensor`): `[B]`, int64, one per image.
        shape (`tuple[int]`): Shape of one image's noise.
        stream (`int` or `torch.Tensor`): Streams of the same seed are independent (restarts, augmentation). One for
            all images, or one of each: `[B]`, int64.

    Returns:
        `torch.Tensor`: `[B, *shape]`, float32. Row i depends on `seeds[i]` and its stream alone.

    Example:
        >>> seeds = torch.tensor([5, 6])
        >>> noise = uniform_noise(seeds, (3, 8, 8))
        >>> noise.shape, torch.equal(noise[1:], uniform_noise(seeds[1:], (3, 8, 8)))
        (torch.Size([2, 3, 8, 8]), True)
    """
    size = math.prod(shape)
    position = _mix(torch.arange(size, device=seeds.device) * 0x9E3779B1 + 0x7F4A7C15)
    key = _mix(_fold(seeds) + _fold(seeds ^ 0x2545F491) * 0x9E3779B1 + (2 * stream + 1) * 0x85EBCA6B)
    own = _fold(seeds)

    # A processor hashes few numbers at a time, which stay in its cache: four times as fast.
    noise = torch.empty(len(seeds), size, dtype=torch.float32, device=seeds.device)
    rows = max(1, CACHED // max(1, size) if seeds.device.type == "cpu" else len(seeds))
    for first in range(0, len(seeds), rows):
        part = slice(first, first + rows)
        bits = _mix_in_place(position + key[part].unsqueeze(1))
        bits = _mix_in_place(bits.bitwise_xor_(own[part].unsqueeze(1)))
        noise[part] = bits.bitwise_right_shift_(8)
    return noise.div_(2**24).view(len(seeds), *shape)


def normal_noise(seeds: torch.Tensor, shape: Sequence[int], stream: int | torch.Tensor = 0) -> torch.Tensor:
    """Draws standard normal numbers `[B, *shape]` from two uniform ones each (Box and Muller, 1958).

    Its arguments are those of [`uniform_noise`].

    Example:
        >>> noise = normal_noise(torch.arange(1000), (8,))
        >>> abs(noise.mean().item()) < 0.05, abs(noise.std().item() - 1) < 0.05
        (True, True)
    """
    radius = uniform_noise(seeds, shape, 2 * stream + 1000).neg_().log1p_().mul_(-2).sqrt_()
    angle = uniform_noise(seeds, shape, 2 * stream + 1001).mul_(2 * math.pi)
    return radius.mul_(angle.cos_())


def _mix(x: torch.Tensor | int) -> torch.Tensor | int:
    """A 32-bit integer hash (Ettinger's lowbias32), in int64 so that no product overflows a sign."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)


def _mix_in_place(x: torch.Tensor) -> torch.Tensor:
    """The same hash, written over what it is of."""
    x.bitwise_and_(_MASK)
    x.bitwise_xor_(x >> 16).mul_(0x21F0AAAD).bitwise_and_(_MASK)
    x.bitwise_xor_(x >> 15).mul_(0x735A2D97).bitwise_and_(_MASK)
    return x.bitwise_xor_(x >> 15)


def _fold(seeds: torch.Tensor | int) -> torch.Tensor | int:
    """All 64 bits of a seed in 32."""
    return _mix(_mix(seeds) + ((seeds >> 32) & _MASK) * 0x9E3779B1)
