"""A CLIP as open_clip has it, written from its description and not with the package's tables of names."""

import copy

import numpy as np
import torch
from torch import nn
from transformers import CLIPModel

from support.tiny import make_model

TEXTS = torch.tensor([[0, 5, 9, 1, 1], [0, 7, 3, 4, 1]])  # ends at 1, and is padded by it


class Block(nn.Module):
    """A transformer block of open_clip's CLIP, with its names; written from its description, not with our table."""

    def __init__(self, width, heads, inner, act):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2, self.mlp = nn.LayerNorm(width), nn.Sequential()
        for name, part in {"c_fc": nn.Linear(width, inner), "act": act, "c_proj": nn.Linear(inner, width)}.items():
            self.mlp.add_module(name, part)

    def forward(self, x, mask=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


def blocks(config):
    act = {"gelu": nn.GELU, "quick_gelu": QuickGELU}[config.hidden_act]()
    sizes = config.hidden_size, config.num_attention_heads, config.intermediate_size
    transformer = nn.Module()
    transformer.resblocks = nn.ModuleList(Block(*sizes, act) for _ in range(config.num_hidden_layers))
    return transformer


class Visual(nn.Module):
    def __init__(self, config, dim):
        super().__init__()
        width, size = config.hidden_size, config.patch_size
        self.conv1 = nn.Conv2d(3, width, size, size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((config.image_size // size) ** 2 + 1, width))
        self.ln_pre, self.transformer, self.ln_post = nn.LayerNorm(width), blocks(config), nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, dim))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


class OpenClip(nn.Module):
    def __init__(self, config):
        super().__init__()
        text, width = config.text_config, config.text_config.hidden_size
        self.eos = text.eos_token_id
        self.visual = Visual(config.vision_config, config.projection_dim)
        self.transformer, self.ln_final = blocks(text), nn.LayerNorm(width)
        self.token_embedding = nn.Embedding(text.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(text.max_position_embeddings, width))
        self.text_projection = nn.Parameter(torch.zeros(width, config.projection_dim))
        self.logit_scale = nn.Parameter(torch.tensor(0.0))

    def encode_text(self, ids):
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = torch.full((length, length), -torch.inf).triu(1)
        for block in self.transformer.resblocks:
            x = block(x, mask)
        return self.ln_final(x)[torch.arange(len(ids)), (ids == self.eos).int().argmax(1)] @ self.text_projection

    def forward(self, images, ids):
        images, texts = self.visual(images), self.encode_text(ids)
        return self.logit_scale.exp() * nn.functional.normalize(images) @ nn.functional.normalize(texts).T


def other_clip(model: CLIPModel, seed: int = 7) -> OpenClip:
    """A model of open_clip's kind and the shapes of `model`, with weights of its own."""
    torch.manual_seed(seed)
    other = OpenClip(model.config).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return other


def make_clip(act: str = "quick_gelu", **changes) -> CLIPModel:
    model = make_model(**changes)
    config = copy.deepcopy(model.config)
    config.vision_config.hidden_act = config.text_config.hidden_act = act
    changed = CLIPModel(config).eval()
    changed.load_state_dict(model.state_dict())
    return changed


def logits(model: CLIPModel, pixel_values: torch.Tensor, ids: torch.Tensor = TEXTS) -> torch.Tensor:
    return model(pixel_values=pixel_values, input_ids=ids).logits_per_image


def features(model: CLIPModel, pixel_values: torch.Tensor) -> torch.Tensor:
    return model.visual_projection(model.vision_model(pixel_values=pixel_values).pooler_output)


def fare(other):
    return other.visual.state_dict()


def tecoa(other):
    """As the authors' training script saves: the vision tower beside a prompt, an optimizer and NumPy's accuracy."""
    optimizer = torch.optim.SGD(other.visual.parameters(), lr=1e-5, momentum=0.9)
    return {
        "epoch": 1,
        "state_dict": {"module.pad_up": torch.zeros(1)},
        "add_prompter": {},
        "vision_encoder_state_dict": other.visual.state_dict(),
        "best_acc1": np.float64(38.18),
        "optimizer": optimizer.state_dict(),
    }


def parallel(other):
    return {f"module.{name}": value for name, value in other.visual.state_dict().items()}
