"""Classifiers and lengths that tests of attacks share."""

import torch


def linear(weight, bias):
    """A linear classifier of pixels, in their own precision."""
    return lambda images: images.flatten(1) @ weight.to(images.dtype).T + bias.to(images.dtype)


def length(delta: torch.Tensor, norm: str) -> torch.Tensor:
    """Length of each perturbation, measured in float64."""
    flat = delta.flatten(1).double()
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)
