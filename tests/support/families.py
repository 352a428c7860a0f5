"""A tiny random model of each family of dual and image encoders, hidden and projection widths unequal."""

import torch
import transformers
from torch import nn
from transformers import BitImageProcessorPil

from support.tiny import SIZE

# ImageNet's statistics.
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TEXT = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=32)
TEXT.update(max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1)
ROBERTA = {**TEXT, "max_position_embeddings": 20}  # whose positions begin behind the padding's
VISION = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
VISION.update(image_size=SIZE, patch_size=4)
WIDTH = 24


def clip(**vision) -> nn.Module:
    towers = dict(text_config={**TEXT, "projection_dim": WIDTH}, vision_config={**VISION, "projection_dim": WIDTH})
    towers["vision_config"].update(vision)
    towers["text_config"].update({key: vision[key] for key in ("hidden_act",) if key in vision})
    return transformers.CLIPModel(transformers.CLIPConfig(**towers, projection_dim=WIDTH))


def metaclip_2() -> nn.Module:
    towers = dict(text_config={**TEXT, "projection_dim": WIDTH}, vision_config={**VISION, "projection_dim": WIDTH})
    return transformers.MetaClip2Model(transformers.MetaClip2Config(**towers, projection_dim=WIDTH))


def chinese_clip() -> nn.Module:
    towers = dict(text_config=TEXT, vision_config={**VISION, "projection_dim": WIDTH})
    return transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig(**towers, projection_dim=WIDTH))


def altclip() -> nn.Module:
    towers = dict(text_config={**ROBERTA, "project_dim": 20}, vision_config={**VISION, "projection_dim": WIDTH})
    return transformers.AltCLIPModel(transformers.AltCLIPConfig(**towers, projection_dim=WIDTH))


def blip() -> nn.Module:
    towers = dict(text_config={**TEXT, "encoder_hidden_size": 32}, vision_config={**VISION, "initializer_range": 0.02})
    return transformers.BlipModel(transformers.BlipConfig(**towers, projection_dim=WIDTH))


def siglip() -> nn.Module:
    towers = dict(text_config={**TEXT, "projection_size": 32}, vision_config=VISION)
    model = transformers.SiglipModel(transformers.SiglipConfig(**towers))
    nn.init.constant_(model.logit_scale, 2.3)
    nn.init.constant_(model.logit_bias, -9.0)
    model.text_model.embeddings.token_embedding.weight.data.mul_(20)  # else the padding drowns the class names
    return model


def aimv2() -> nn.Module:
    towers = dict(text_config=TEXT, vision_config={**VISION, "is_native": False})
    model = transformers.Aimv2Model(transformers.Aimv2Config(**towers, projection_dim=WIDTH, max_logit_scale=10.0))
    nn.init.constant_(model.logit_scale, 3.0)  # beyond the largest that its forward lets through
    return model


def tipsv2() -> nn.Module:
    vision = {**VISION, "mlp_ratio": 2, "num_register_tokens": 2}
    config = transformers.Tipsv2Config(text_config={**TEXT, "hidden_size": 32}, vision_config=vision)
    return transformers.Tipsv2Model(config)


def vision_text() -> nn.Module:
    text = transformers.BertConfig(**TEXT)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.CLIPVisionConfig(**VISION), text, projection_dim=WIDTH
    )
    return transformers.VisionTextDualEncoderModel(config)


DUAL = {
    "CLIPModel": clip,
    # As ViT-bigG: another activation, and heads whose width is no power of two; a head of 13 here, of 104 there.
    "CLIPModel of bigG's shape": lambda: clip(
        hidden_act="gelu", hidden_size=52, intermediate_size=256, num_attention_heads=4
    ),
    "MetaClip2Model": metaclip_2,
    "ChineseCLIPModel": chinese_clip,
    "AltCLIPModel": altclip,
    "BlipModel": blip,
    "SiglipModel": siglip,
    "Aimv2Model": aimv2,
    "Tipsv2Model": tipsv2,
    "VisionTextDualEncoderModel": vision_text,
}


def encoder(name: str, config: str, **options) -> nn.Module:
    return getattr(transformers, name)(getattr(transformers, config)(**{**VISION, **options}))


ENCODER = {
    "CLIPVisionModel": lambda: encoder("CLIPVisionModel", "CLIPVisionConfig"),
    "CLIPVisionModelWithProjection": lambda: encoder(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", projection_dim=WIDTH
    ),
    "SiglipVisionModel": lambda: encoder("SiglipVisionModel", "SiglipVisionConfig"),
    "Dinov2Model": lambda: encoder("Dinov2Model", "Dinov2Config", mlp_ratio=2),
    "Dinov2WithRegistersModel": lambda: encoder(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", mlp_ratio=2, num_register_tokens=2
    ),
    "DINOv3ViTModel": lambda: encoder("DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=2),
    "ViTModel": lambda: encoder("ViTModel", "ViTConfig"),
    "DeiTModel": lambda: encoder("DeiTModel", "DeiTConfig"),
}


def make(name: str, seed: int = 0) -> nn.Module:
    """The model of a family, in eval mode; its weights are large enough for gradients to be seen."""
    torch.manual_seed(seed)
    model = {**DUAL, **ENCODER}[name]().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
            if not parameter.any() and "bias" not in key:  # tokens that start at zero
                parameter.normal_(0, 0.1)
    return model


def image_processor(size: int = SIZE) -> BitImageProcessorPil:
    """As DINOv2 has it, with ImageNet's statistics."""
    square = {"height": size, "width": size}
    return BitImageProcessorPil(size={"shortest_edge": size}, crop_size=square, image_mean=MEAN, image_std=STD)
