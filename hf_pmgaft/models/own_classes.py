"""Models of somebody's own class: whether their passes give what the package reads of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..modes import frozen, full_precision
from .backbones import Backbone, FrozenTower, get_encoder, unwrap_peft

LIBRARIES = ("transformers", "hf_pmgaft")
FEATURES = ("get_image_features", "get_text_features")
LEAST_DIFFERENCE = 0.01  # of a cosine, that no rounding makes
WAY_OUT = "Let forward, get_image_features and get_text_features return what those of transformers' class return."
IDS = ((0, 1), (1, 0), (0, 0))  # texts of two tokens, which every vocabulary has


def check_own_pass(model: nn.Module) -> None:
    """Raises `ValueError` for a model of a class of one's own whose passes do not give its embeddings.

    By a few small passes: what is read of them must be floating point numbers `[B,D]`, and their cosines the model's
    own logits. Models of transformers' classes cost nothing.

    Example:
        >>> check_own_pass(model)
    """
    if not _has_own_pass(model):
        return
    backbone = get_encoder(model)
    with full_precision(model), frozen(model), torch.no_grad():
        images = _images(backbone, model)
        try:
            embeds = backbone.image_embeds(model, images)
            _check_shape(embeds, backbone, model)
            if not backbone.text_modules:
                return
            cosines, own = _cosines(backbone, model, images, embeds), _own_cosines(backbone, model, images)
            again = _own_cosines(backbone, model, images)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"You passed a {_name(model)}, whose forward pass does not give what its family's gives "
                f"({type(error).__name__}: {error!s:.150}), so that its embeddings cannot be read. {WAY_OUT}"
            ) from error
    is_random = not torch.equal(own, again)  # which the report says
    if not is_random and (cosines - own).abs().max() > LEAST_DIFFERENCE:
        raise ValueError(
            f"You passed a {_name(model)}, whose own logits are not the cosines of its embeddings of images and "
            "texts, by which it would be attacked and judged: its forward pass, get_image_features or "
            f"get_text_features changes one of them on the way. {WAY_OUT}"
        )


def check_own_tower(model: nn.Module) -> None:
    """Raises `ValueError` for a model of a class of one's own with more on its image side than its family has.

    What is more would be neither trained nor part of the teacher, nor loaded again.

    Example:
        >>> check_own_tower(model)
    """
    if not _has_own_pass(model):
        return
    backbone = get_encoder(model)
    plain = unwrap_peft(model)
    modules = {name: getattr(plain, name) for name in backbone.vision_modules} or {"vision_model": plain}
    with full_precision(model), frozen(model), torch.no_grad():
        images = _images(backbone, model)
        embeds = backbone.image_embeds(model, images).float()
        of_tower = FrozenTower(backbone, modules)(images).float()
    if F.cosine_similarity(embeds, of_tower).min() < 1 - LEAST_DIFFERENCE:
        raise ValueError(
            f"You passed a {_name(model)}, whose embeddings of images are not those of its modules "
            f"{', '.join(modules)} alone, which are what is trained, saved and copied as the teacher. Put what you "
            "added into one of these modules."
        )


def _has_own_pass(model: nn.Module) -> bool:
    """Whether a model's class, or its instance, may compute something else than its family does."""
    plain = unwrap_peft(model)
    is_known = type(plain).__module__.partition(".")[0] in LIBRARIES
    return not is_known or any(name in vars(plain) for name in FEATURES)


def _images(backbone: Backbone, model: nn.Module) -> torch.Tensor:
    """Two images of noise, as the model takes them."""
    edge = backbone.image_size(unwrap_peft(model))
    images = torch.randn(2, 3, edge, edge, generator=torch.Generator().manual_seed(0))
    return images.to(next(model.parameters()).device)


def _check_shape(embeds: torch.Tensor, backbone: Backbone, model: nn.Module) -> None:
    width = backbone.width(unwrap_peft(model).config)
    if not isinstance(embeds, torch.Tensor) or not embeds.is_floating_point() or embeds.shape != (2, width):
        told = f"{embeds.dtype} of shape {list(embeds.shape)}" if isinstance(embeds, torch.Tensor) else type(embeds)
        raise ValueError(
            f"You passed a {_name(model)}, whose embeddings of 2 images are {told} in place of floating point numbers "
            f"[2,{width}], as its configuration says. {WAY_OUT}"
        )
    if not torch.isfinite(embeds).all():
        raise ValueError(
            f"You passed a {_name(model)}, whose embeddings of images are NaN or infinite. Correct what it computes."
        )


def _cosines(backbone: Backbone, model: nn.Module, images: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    ids = torch.tensor(IDS, device=images.device)
    texts = backbone.text_embeds(model, ids, torch.ones_like(ids))
    return F.normalize(embeds.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T


def _own_cosines(backbone: Backbone, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The model's own logits, before its scale and bias."""
    ids = torch.tensor(IDS, device=images.device)
    plain = unwrap_peft(model)
    logits = model(pixel_values=images, input_ids=ids, attention_mask=torch.ones_like(ids)).logits_per_image.float()
    return (logits - backbone.logit_bias(plain).to(logits)) / backbone.logit_scale(plain)


def _name(model: nn.Module) -> str:
    return type(unwrap_peft(model)).__name__
