"""One row per family: where a dual encoder, or an image encoder alone, keeps what this package needs.

The class of a row, the tables of rows, and the look-up by a model's class stand together: whoever adds a family reads
all three.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from torch import nn

from .lean import lean

ImageSide = nn.Module  # a whole model, or its image side alone; both have the modules of `Backbone.vision_modules`


@dataclass(frozen=True)
class Backbone:
    """Says where a family keeps what this package needs. Its defaults are CLIP's, in transformers.

    Args:
        vision_modules (`tuple[str, ...]`): Attributes that make up the image side, projection included; none where
            the whole model is one.
        text_modules (`tuple[str, ...]`): Attributes that make up the text side; none where there is none.
        vision_layers (`str`, *optional*): Path to the list of blocks of the vision tower.
        after_layers (`tuple[str, ...]`): Modules of the image side that follow the blocks.
        attention (`tuple[str, ...]`): Linear layers of the attention, which LoRA goes to unless told otherwise.
        unused (`tuple[str, ...]`): Modules or parameters of the image side that no embedding depends on.
        embeds (`Callable`): `(image side, output of the vision tower) -> [B,D]`, projected and un-normalised.
        patches (`Callable`, *optional*): `(image side, output of the vision tower) -> [B,N,D]`, the patch tokens in
            the space of the embeddings, row by row; `None` for a family without.
        pooler_is_embedding (`bool`): Whether the `vision_model_output.pooler_output` of a model's own output is the
            embedding. Where it comes before the projection, this is applied inside the pass.
        texts (`Callable`): Output of the model -> its text embeddings, normalised or not.
        width (`Callable`): `config -> D`.
        logit_scale, logit_bias (`Callable`): `model ->` what cosines are multiplied by, and what is added then.
        full_text (`bool`): Whether texts are padded to all positions, and the padding is attended to.
        takes_prompts (`bool`): Whether prompts and adapters beside the weights find the modules of CLIP.

    Example:
        >>> backbone = get_backbone(model)
        >>> backbone.image_size(model), backbone.text_positions(model), backbone.width(model.config)
        (16, 16, 24)
        >>> backbone.image_embeds(model, images[:2]).shape
        torch.Size([2, 24])
    """

    vision_modules: tuple[str, ...] = ("vision_model", "visual_projection")
    text_modules: tuple[str, ...] = ("text_model", "text_projection")
    vision_layers: str | None = "vision_model.encoder.layers"
    after_layers: tuple[str, ...] = ("vision_model.post_layernorm", "visual_projection")
    attention: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")
    unused: tuple[str, ...] = ()
    embeds: Callable[[ImageSide, Any], torch.Tensor] = lambda side, output: side.visual_projection(
        output.pooler_output
    )
    patches: Callable[[ImageSide, Any], torch.Tensor] | None = None
    pooler_is_embedding: bool = False
    texts: Callable[[Any], torch.Tensor] = lambda output: output.text_embeds
    width: Callable[[Any], int] = lambda config: config.projection_dim
    logit_scale: Callable[[nn.Module], torch.Tensor] = lambda model: model.logit_scale.float().exp()
    logit_bias: Callable[[nn.Module], torch.Tensor] = lambda model: torch.zeros(())
    full_text: bool = False
    takes_prompts: bool = False

    # ---- Images ----

    def image_embeds(self, model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixel values `[B,3,H,W]` -> embeddings `[B,D]`, projected and un-normalised."""
        with lean(model, unwrap(model)):
            return self.image_embeds_as_is(model, pixel_values)

    def image_embeds_as_is(self, model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        """The same by the passes that the model's modules have; see [`lean`]."""
        if not self.text_modules:
            return self.embeds(model, model(pixel_values=pixel_values))
        if self.pooler_is_embedding:
            return _image_pass(model, pixel_values).vision_model_output.pooler_output
        return self._inside(model, pixel_values, self.embeds)[1]

    def image_and_patch_embeds(
        self, model: nn.Module, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixel values `[B,3,H,W]` -> embeddings `[B,D]` and, by the same pass, patch tokens `[B,h,w,D]`."""
        check_patches(self, unwrap(model))

        def embeds_and_patches(side: ImageSide, output: Any) -> tuple[torch.Tensor | None, torch.Tensor]:
            embeds = None if self.pooler_is_embedding else self.embeds(side, output)
            return embeds, self.patches_on_grid(side, output, pixel_values)

        output, (embeds, patches) = self._inside(model, pixel_values, embeds_and_patches)
        if self.pooler_is_embedding:
            embeds = output.vision_model_output.pooler_output
        return embeds, patches

    def patches_on_grid(self, side: ImageSide, output: Any, pixel_values: torch.Tensor) -> torch.Tensor:
        """The patch tokens in the output of a vision tower, on the grid of the image: `[B,h,w,D]`."""
        patch_size = side.vision_model.config.patch_size
        rows, columns = (edge // patch_size for edge in pixel_values.shape[-2:])
        # The first of them: prompt tokens may follow.
        return self.patches(side, output)[:, : rows * columns].unflatten(1, (rows, columns))

    def image_size(self, model: nn.Module) -> int:
        """Height and width of the images that a plain model takes."""
        size = getattr(model.config, "vision_config", model.config).image_size
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise ValueError(f"You passed a model of images {height} x {width}. Pass one of square images.")
        return height

    def is_vision(self, name: str) -> bool:
        """Whether a parameter of a plain model is on the image side, and its embeddings depend on it."""
        is_inside = not self.vision_modules or _is_in(name, self.vision_modules)
        return is_inside and not _is_in(name, self.unused)

    def vision_parameters(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        """Named parameters of the image side, with their names in the whole model."""
        return [(name, parameter) for name, parameter in model.named_parameters() if self.is_vision(name)]

    def vision_copy(self, model: nn.Module) -> FrozenTower:
        """A frozen copy of the image side, independent of `model`."""
        if self.vision_modules:
            modules = {name: getattr(model, name) for name in self.vision_modules}
        else:
            modules = {"vision_model": model}
        tower = FrozenTower(self, {name: copy.deepcopy(module) for name, module in modules.items()})
        return tower.requires_grad_(False).eval()

    # ---- Texts ----

    def text_embeds(self, model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and their mask `[N,L]` -> embeddings `[N,D]`, projected, of any length; see `full_length`."""
        # The model is called as in image passes; its forward asks for an image.
        edge = self.image_size(unwrap(model))
        image = torch.zeros((1, 3, edge, edge), device=input_ids.device)
        return self.texts(model(pixel_values=image, input_ids=input_ids, attention_mask=attention_mask))

    def full_length(
        self, model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, pad_token_id: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and their mask `[N,L]` as the family was trained on them, which may be at a fixed length."""
        if not self.full_text:
            return input_ids, attention_mask
        length = self.text_positions(model)
        input_ids = F.pad(input_ids[:, :length], (0, max(0, length - input_ids.shape[1])), value=pad_token_id)
        return input_ids, torch.ones_like(input_ids)

    def text_positions(self, model: nn.Module) -> int:
        """How many tokens a text may have."""
        return unwrap(model).config.text_config.max_position_embeddings

    def _inside(self, model: nn.Module, pixel_values: torch.Tensor, function: Callable) -> tuple[Any, Any]:
        """A pass, and what `function(image side, output of the vision tower)` made of it inside.

        There the weights are whole under every engine.
        """
        plain = unwrap(model)
        results = []
        hook = plain.vision_model.register_forward_hook(lambda tower, args, out: results.append(function(plain, out)))
        try:
            output = _image_pass(model, pixel_values)
        finally:
            hook.remove()
        return output, results[0]


class FrozenTower(nn.Module):
    """An image side on its own, such as a teacher's: `pixel_values [B,3,H,W] -> [B,D]`, projected and un-normalised.

    Args:
        backbone (`Backbone`): The row of its family.
        modules (`dict[str, nn.Module]`): The modules of the image side by name.

    Example:
        >>> teacher = get_backbone(model).vision_copy(model)
        >>> torch.allclose(teacher(images), get_backbone(model).image_embeds(model, images), atol=1e-5)
        True
        >>> any(parameter.requires_grad for parameter in teacher.parameters())
        False
    """

    def __init__(self, backbone: Backbone, modules: Mapping[str, nn.Module]):
        super().__init__()
        self.backbone = backbone
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        with lean(self, self):
            return self.backbone.embeds(self, self.vision_model(pixel_values=pixel_values))

    def with_patches(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings and, `[B,h,w,D]`, the patch tokens in their space."""
        output = self.vision_model(pixel_values=pixel_values)
        return self.backbone.embeds(self, output), self.backbone.patches_on_grid(self, output, pixel_values)


def _bias_of(clip: nn.Module) -> torch.Tensor:
    bias = getattr(clip, "logit_bias", None)
    return torch.zeros(()) if bias is None else bias


def _image_pass(model: nn.Module, pixel_values: torch.Tensor) -> Any:
    # The model is called as a module, so that autocast, DDP, FSDP and ZeRO hooks fire; its forward asks for text, so
    # it gets the shortest that all families take.
    prompt = torch.zeros((1, 2), dtype=torch.long, device=pixel_values.device)
    return model(pixel_values=pixel_values, input_ids=prompt)


def _is_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _pooler(side: ImageSide, output: Any) -> torch.Tensor:
    return output.pooler_output


def _class_token(side: ImageSide, output: Any) -> torch.Tensor:
    return output.last_hidden_state[:, 0]


def _normed_patches(side: ImageSide, output: Any) -> torch.Tensor:
    # The last hidden state is the last block's: CLIP norms and projects its class token alone.
    return side.visual_projection(side.vision_model.post_layernorm(output.last_hidden_state[:, 1:]))


def _pooled_patches(side: ImageSide, output: Any) -> torch.Tensor:
    # A head that pools by attention takes each patch into the space of embeddings if it is given that one alone.
    hidden = output.last_hidden_state
    return side.vision_model.head(hidden.flatten(0, 1).unsqueeze(1)).unflatten(0, hidden.shape[:2])


_SELF_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_ATTENTION_POOLED = Backbone(
    vision_modules=("vision_model",),
    text_modules=("text_model",),
    after_layers=("vision_model.post_layernorm", "vision_model.head"),
    embeds=_pooler,
    patches=_pooled_patches,
    pooler_is_embedding=True,
    width=lambda config: config.vision_config.hidden_size,
    logit_bias=lambda model: model.logit_bias,
    full_text=True,
)

# Dual encoders, by class. SigLIP 2 of fixed resolution is a SiglipModel.
BACKBONES: dict[str, Backbone] = {
    "CLIPModel": Backbone(
        patches=_normed_patches,
        pooler_is_embedding=True,
        texts=lambda output: output.text_model_output.pooler_output,  # projected, before any rounding of norms
        takes_prompts=True,
    ),
    "MetaClip2Model": Backbone(patches=_normed_patches, pooler_is_embedding=True, takes_prompts=True),
    "ChineseCLIPModel": Backbone(patches=_normed_patches, pooler_is_embedding=True),
    "AltCLIPModel": Backbone(patches=_normed_patches),
    "BlipModel": Backbone(patches=_normed_patches, attention=("qkv", "projection")),
    "SiglipModel": _ATTENTION_POOLED,
    "Aimv2Model": Backbone(
        after_layers=("vision_model.rms_norm", "vision_model.head", "visual_projection"),
        patches=lambda side, output: side.visual_projection(_pooled_patches(side, output)),
        logit_scale=lambda model: model.logit_scale.float().clamp(0, model.max_log_logit_scale).exp(),
    ),
    "Tipsv2Model": Backbone(
        vision_modules=("vision_model",),
        text_modules=("text_model",),
        vision_layers="vision_model.encoder.layer",
        after_layers=("vision_model.layernorm",),
        attention=_SELF_ATTENTION,
        unused=("vision_model.embeddings.mask_token",),
        embeds=_pooler,
        patches=lambda side, out: out.last_hidden_state[:, 1 + side.vision_model.config.num_register_tokens :],
        pooler_is_embedding=True,
        width=lambda config: config.vision_config.hidden_size,
        logit_scale=lambda model: 1 / model.temperature.float(),
    ),
    # Its towers are of any families, so nothing is known of their blocks and patch tokens.
    "VisionTextDualEncoderModel": Backbone(vision_layers=None, after_layers=()),
}


def _encoder(
    layers: str,
    after: tuple[str, ...],
    embeds: Callable[[ImageSide, Any], torch.Tensor] = _class_token,
    width: Callable[[Any], int] = lambda config: config.hidden_size,
    **values: Any,
) -> Backbone:
    """A model that is an image side alone; its embedding is the class token unless said otherwise."""
    return Backbone(
        vision_modules=(),
        text_modules=(),
        vision_layers=layers,
        after_layers=after,
        embeds=embeds,
        width=width,
        logit_scale=lambda model: torch.ones(()),
        **values,
    )


_DINO = _encoder("encoder.layer", ("layernorm",), attention=_SELF_ATTENTION, unused=("embeddings.mask_token",))
_VIT = _encoder("layers", ("layernorm",), attention=_SELF_ATTENTION, unused=("embeddings.mask_token", "pooler"))

# Image encoders without text, by class.
ENCODERS: dict[str, Backbone] = {
    "CLIPVisionModel": _encoder("encoder.layers", ("post_layernorm",), embeds=_pooler),
    "CLIPVisionModelWithProjection": _encoder(
        "vision_model.encoder.layers",
        ("vision_model.post_layernorm", "visual_projection"),
        embeds=lambda side, output: output.image_embeds,
        width=lambda config: config.projection_dim,
    ),
    "SiglipVisionModel": _encoder("encoder.layers", ("post_layernorm", "head"), embeds=_pooler),
    "Dinov2Model": _DINO,
    "Dinov2WithRegistersModel": _DINO,
    "DINOv3ViTModel": replace(_DINO, vision_layers="model.layer", after_layers=("norm",)),
    "ViTModel": _VIT,
    "DeiTModel": _VIT,
}

# Dual encoders that are evaluated alone: what only open_clip can build.
EVALUATED: dict[str, Backbone] = {
    "OpenClipModel": Backbone(
        vision_modules=("clip.visual",),
        text_modules=("clip.text",),
        vision_layers=None,
        after_layers=(),
        pooler_is_embedding=True,
        logit_scale=lambda model: model.clip.logit_scale.float().exp(),
        logit_bias=lambda model: _bias_of(model.clip),
        full_text=True,
    ),
}

# What looks like a dual encoder and does not fit, and why.
REFUSED: dict[str, str] = {
    "Siglip2Model": "takes sequences of patches with masks instead of images [B,3,H,W]; SigLIP 2 of fixed resolution "
    "loads as a SiglipModel",
    "AlignModel": "normalises over the batch, so that an image's embedding depends on the images beside it",
    "GroupViTModel": "normalises over the batch, so that an image's embedding depends on the images beside it",
    "FlavaModel": "compares no images with texts in its own forward pass, which fuses them",
    "CLIPSegModel": "is there to segment images",
    "OwlViTModel": "is there to detect objects",
    "Owlv2Model": "is there to detect objects",
    "XCLIPModel": "takes videos instead of images",
    "ClapModel": "takes sounds instead of images",
    "LlavaModel": "answers in words, for which there is `pmgaft attack-vlm`",
    "LlavaForConditionalGeneration": "answers in words, for which there is `pmgaft attack-vlm`",
}


def unwrap(model: nn.Module) -> nn.Module:
    """Finds the plain model inside any engine's wrapper and any PEFT model.

    Example:
        >>> unwrap(nn.DataParallel(model)) is model
        True
    """
    return unwrap_peft(extract_model_from_parallel(model, keep_torch_compile=False))


def unwrap_peft(model: nn.Module) -> nn.Module:
    """Finds the plain model inside a PEFT model; any other model is returned as it is.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> type(unwrap_peft(get_peft_model(model, LoraConfig(target_modules=["q_proj"])))).__name__
        'CLIPModel'
    """
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def get_backbone(model: nn.Module) -> Backbone:
    """Finds the row of a dual encoder.

    Raises:
        TypeError: if `model` is no dual encoder that the package knows.

    Example:
        >>> get_backbone(model) is BACKBONES["CLIPModel"]
        True
    """
    row = _lookup(model, {**BACKBONES, **EVALUATED})
    if row is None or not _has_modules(model, row):
        raise TypeError(_refusal(model))
    return row


def get_encoder(model: nn.Module) -> Backbone:
    """Finds the row of a model with or without a text tower.

    Raises:
        TypeError: if `model` is no encoder that the package knows.

    Example:
        >>> get_encoder(model).image_embeds(model, images[:2]).shape
        torch.Size([2, 24])
    """
    row = _lookup(model, {**BACKBONES, **EVALUATED, **ENCODERS})
    if row is None or not _has_modules(model, row):
        raise TypeError(_refusal(model))
    return row


def check_dual_encoder(model: nn.Module) -> None:
    """Raises `TypeError` unless a model has an image and a text tower that the package knows.

    Example:
        >>> check_dual_encoder(model.vision_model)
        Traceback (most recent call last):
        TypeError: You passed a CLIPVisionModel, but zero-shot classification needs an image and a text tower...
    """
    get_backbone(model)


def check_encoder(model: nn.Module) -> None:
    """Raises `TypeError` unless a model has an image tower that the package knows, with or without a text tower.

    Example:
        >>> check_encoder(nn.Linear(2, 2))
        Traceback (most recent call last):
        TypeError: You passed a Linear, but zero-shot classification needs an image and a text tower...
    """
    get_encoder(model)


def check_patches(backbone: Backbone, model: nn.Module) -> None:
    """Raises `ValueError` for a family that has no patch tokens in the space of its embeddings."""
    if backbone.patches is None:
        families = sorted(name for name, row in BACKBONES.items() if row.patches is not None)
        raise ValueError(
            f"You asked for patch tokens of a {type(model).__name__}, which has none in the space of its embeddings. "
            f"Choose another objective or picture, or one of: {', '.join(families)}."
        )


def _has_modules(model: nn.Module, row: Backbone) -> bool:
    """Whether a model is of the family, and not of another library's class of the same name."""
    plain = unwrap_peft(model)
    modules = [name.partition(".")[0] for name in row.vision_modules + row.text_modules]
    return all(hasattr(plain, name) for name in ("config", *modules))


def _refusal(model: nn.Module) -> str:
    reason = _lookup(model, REFUSED)
    row = _lookup(model, {**BACKBONES, **ENCODERS})
    if row is not None and not _has_modules(model, row):
        reason = f"is of {type(unwrap_peft(model)).__module__} and not built like transformers' class of that name"
    why = f"which {reason}" if reason else "but zero-shot classification needs an image and a text tower"
    return (
        f"You passed a {type(unwrap_peft(model)).__name__}, {why}. Pass one of: {', '.join(sorted(BACKBONES))}. "
        "Objectives without text (fare, sim_clip), and evaluation with a `head`, also take: "
        f"{', '.join(sorted(ENCODERS))}."
    )


def _lookup(model: nn.Module, table: Mapping[str, Any]) -> Any:
    """The entry of a table for the class of a model, or for the nearest class that it inherits from."""
    names = (cls.__name__ for cls in type(unwrap_peft(model)).__mro__)
    return next((table[name] for name in names if name in table), None)
