"""What tests of tunings ask of a model, and a model of two blocks."""

import torch

from hf_pmgaft import encode_class_names
from support.tiny import CLASS_NAMES, make_model


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def embed(model, seed: int = 0) -> torch.Tensor:
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return model.eval()(pixel_values=pixels, input_ids=torch.zeros((1, 2), dtype=torch.long)).image_embeds


def images_and_texts(model, processor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return embed(model), encode_class_names(model, processor, CLASS_NAMES, "a photo of the {}")


def shake(model) -> None:
    """Moves an adapter away from its start, where it changes nothing."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.3 * torch.randn_like(parameter))


def two_blocks():
    model = make_model(text_layers=2)
    assert len(model.text_model.encoder.layers) == len(model.vision_model.encoder.layers) == 2
    return model
