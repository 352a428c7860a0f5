"""The lean image tower computes what the plain one does, is used where it may be, and gives way where it may not."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.families import make
from support.paths import EMOJI as EMOJI_FOLDER
from support.tiny import CLASS_NAMES, make_model
from support.trainers import LORA, losses, make_trainer
from torch import nn
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPMLP

from hf_pmgaft import ZeroShotClassifier, encode_class_names
from hf_pmgaft.attacks import pgd
from hf_pmgaft.models.backbones import get_encoder
from hf_pmgaft.models.lean import TOWERS, lean

EMOJI = EMOJI_FOLDER / "model"
LEAN = ("CLIPModel", "MetaClip2Model", "ChineseCLIPModel", "AltCLIPModel", "CLIPVisionModel")
MODELS = (*LEAN, "CLIPVisionModelWithProjection", "embedded default", "LoRA")


def build(name: str) -> nn.Module:
    if name == "embedded default":
        return CLIPModel.from_pretrained(EMOJI).eval()
    if name == "LoRA":
        return get_peft_model(make_model(), LoraConfig(**LORA)).eval()
    return make(name)


def pixels(model: nn.Module) -> torch.Tensor:
    config = getattr(model.config, "vision_config", model.config)
    return torch.randn(3, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(0))


def tower_of(model: nn.Module) -> nn.Module:
    return next(module for module in model.modules() if type(module).__name__ in TOWERS)


def made_plain(model: nn.Module) -> nn.Module:
    """The same model with hooks that do nothing, which copies of it have too."""
    tower = tower_of(model)
    for module in (tower.embeddings.patch_embedding, tower.encoder.layers[-1], getattr(model, "text_model", tower)):
        module.register_forward_hook(do_nothing)
    return model


def do_nothing(*_):
    return None


def embeds_and_gradients(model: nn.Module, autocast: bool = False):
    """Embeddings, and the gradients of a weighted sum of them at the pixels and at what is trained."""
    images = pixels(model).requires_grad_()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        embeds = get_encoder(model).image_embeds(model, images)
    direction = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(1))
    (embeds.float() * direction).sum().backward()
    # A key's bias has no true gradient: it shifts all of a query's attention scores alike.
    gradients = {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None and "k_proj.bias" not in name
    }
    return embeds.detach(), images.grad, gradients


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm().clamp_min(1e-12)).item()


class Work:
    """What a pass computed: tokens of each block's MLP in the vision tower, convolutions, passes of the text tower."""

    def __init__(self, monkeypatch):
        self.tokens, self.convolutions, self.token_embeddings = [], 0, 0
        mlp, conv, embedding = CLIPMLP.forward, nn.Conv2d.forward, nn.Embedding.forward

        def count_tokens(module, hidden):
            self.tokens.append(hidden.shape[1])
            return mlp(module, hidden)

        def count_convolutions(module, images):
            self.convolutions += 1
            return conv(module, images)

        def count_embeddings(module, ids):
            self.token_embeddings += 1
            return embedding(module, ids)

        monkeypatch.setattr(CLIPMLP, "forward", count_tokens)
        monkeypatch.setattr(nn.Conv2d, "forward", count_convolutions)
        monkeypatch.setattr(nn.Embedding, "forward", count_embeddings)


PLAIN_BLOCKS, LEAN_BLOCKS = (
    [17, 17],
    [17, 1],
)  # of `make_model`, whose text tower sees the two tokens of a dummy prompt
TEXT_BLOCKS = [2]


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_and_gradients_are_those_of_the_plain_pass(name):
    model = build(name)
    embeds, at_pixels, gradients = embeds_and_gradients(model)
    plain, at_plain_pixels, plain_gradients = embeds_and_gradients(made_plain(copy.deepcopy(model)))

    torch.testing.assert_close(embeds, plain, atol=1e-5, rtol=1e-5)
    assert at_plain_pixels.flatten(1).norm(dim=1).min() > 0
    assert relative(at_pixels, at_plain_pixels) < 1e-4
    largest = max(gradient.norm().item() for gradient in plain_gradients.values())
    assert largest > 0
    for key in plain_gradients.keys() | gradients.keys():
        if key in gradients and key in plain_gradients:
            bound = 1e-4 * (plain_gradients[key].norm() + 1e-4 * largest)
            assert (gradients[key] - plain_gradients[key]).norm() <= bound, key
        else:  # what takes part in no embedding gets none in one, and zeros in the other
            assert not {**gradients, **plain_gradients}[key].any(), key


@pytest.mark.parametrize("name", ["CLIPModel", "embedded default", "LoRA"])
def test_bf16_rounds_no_more_than_the_plain_pass(name):
    model = build(name)
    exact = embeds_and_gradients(model)
    found, plain = (embeds_and_gradients(m, True) for m in (model, made_plain(copy.deepcopy(model))))
    assert found[0].dtype == plain[0].dtype
    for ours, theirs, true in zip(found[:2], plain[:2], exact[:2], strict=True):
        assert relative(ours.float(), true) < 1.5 * relative(theirs.float(), true) < 0.1


def test_one_token_leaves_the_last_block_and_neither_convolution_nor_text_tower_runs(monkeypatch):
    model = make_model()
    work = Work(monkeypatch)
    get_encoder(model).image_embeds(model, pixels(model))
    assert (work.tokens, work.convolutions) == (LEAN_BLOCKS, 0)
    assert work.token_embeddings == 1  # the positions of patches


@pytest.mark.parametrize("name", MODELS)
def test_every_listed_family_is_lean(name, monkeypatch):
    model = build(name)
    work, last = Work(monkeypatch), tower_of(model).encoder.layers[-1]
    seen = []
    monkeypatch.setattr(type(last.self_attn), "forward", lambda attention, *_, **__: seen.append(attention) or 1 / 0)
    monkeypatch.setattr(tower_of(model).encoder, "layers", nn.ModuleList([last]))  # the others do call it
    get_encoder(model).image_embeds(model, pixels(model))
    assert not seen and work.convolutions == 0


def test_copies_of_the_image_side_are_lean(monkeypatch):
    for name in ("CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection"):
        model = make(name)
        expected = get_encoder(model).image_embeds(made_plain(copy.deepcopy(model)), pixels(model))
        with monkeypatch.context() as patch:
            work = Work(patch)
            embeds = get_encoder(model).vision_copy(model)(pixels(model))
            assert (work.tokens, work.convolutions) == (LEAN_BLOCKS, 0)
        torch.testing.assert_close(embeds, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_nothing_stays_in_the_model(error, monkeypatch):
    model = make_model()
    before, expected = state_of(model), model(pixel_values=pixels(model), input_ids=torch.zeros(1, 2).long())
    if error:
        monkeypatch.setattr(CLIPMLP, "forward", raise_error)
        with pytest.raises(RuntimeError, match="on purpose"):
            get_encoder(model).image_embeds(model, pixels(model))
        monkeypatch.undo()
    else:
        get_encoder(model).image_embeds(model, pixels(model))
    assert state_of(model) == before and not any("forward" in vars(module) for module in model.modules())
    after = model(pixel_values=pixels(model), input_ids=torch.zeros(1, 2).long())
    assert after.vision_model_output.last_hidden_state.shape == (3, 17, 32)
    assert torch.equal(after.logits_per_image, expected.logits_per_image)


def raise_error(*_):
    raise RuntimeError("on purpose")


def state_of(model: nn.Module) -> list[tuple[str, set[str]]]:
    return [(name, set(vars(module))) for name, module in model.named_modules()]


class ByTheBatch(nn.Linear):
    """Like a quantised layer whose scale is that of all tokens together."""

    def forward(self, hidden):
        return super().forward((hidden / hidden.abs().max() * 8).round() / 8 * hidden.abs().max())


def quantise(model):
    linear = last(model).mlp.fc1
    other = ByTheBatch(linear.in_features, linear.out_features)
    other.load_state_dict(linear.state_dict())
    last(model).mlp.fc1 = other


def last(model):
    return model.vision_model.encoder.layers[-1]


def checkpoint(model):
    model.train()
    if hasattr(model, "activation_checkpointing_enable"):  # the name of newer transformers
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def drop_attention(model):
    model.train()
    last(model).self_attn.dropout = 0.5


def drop_in_adapter(model):
    return get_peft_model(model, LoraConfig(**LORA, lora_dropout=0.5)).train()


PATCHES = lambda model: model.vision_model.embeddings.patch_embedding  # noqa: E731
BLOCK_IS_PLAIN = {
    "forward hook on the block": lambda model: last(model).register_forward_hook(do_nothing),
    "forward pre-hook on the attention": lambda model: last(model).self_attn.register_forward_pre_hook(do_nothing),
    "hook on a projection": lambda model: last(model).self_attn.out_proj.register_forward_hook(do_nothing),
    "backward hook on the MLP": lambda model: last(model).mlp.register_full_backward_hook(do_nothing),
    "backward pre-hook on a norm": lambda model: last(model).layer_norm2.register_full_backward_pre_hook(do_nothing),
    "hook on the encoder": lambda model: model.vision_model.encoder.register_forward_hook(do_nothing),
    "hook on the tower": lambda model: model.vision_model.register_forward_hook(do_nothing),
    "hook on the model": lambda model: model.register_forward_hook(do_nothing),
    "another forward": lambda model: setattr(last(model), "forward", last(model).forward),
    "eager attention": lambda model: model.set_attn_implementation("eager"),
    "hidden states": lambda model: setattr(model.vision_model.config, "output_hidden_states", True),
    "quantised layer": quantise,
    "gradient checkpointing": checkpoint,
    "attention dropout": drop_attention,
    "adapter dropout": drop_in_adapter,
}


@pytest.mark.parametrize("case", sorted(BLOCK_IS_PLAIN))
def test_the_last_block_is_plain_where_it_must_be_with_the_values_of_the_plain_pass(case, monkeypatch):
    model = make_model()
    changed = BLOCK_IS_PLAIN[case](model)
    model = changed if isinstance(changed, nn.Module) else model
    torch.manual_seed(0)
    expected = model(pixel_values=pixels(model), input_ids=torch.zeros(1, 2).long())
    expected = expected.vision_model_output.pooler_output
    work = Work(monkeypatch)
    torch.manual_seed(0)
    embeds = get_encoder(model).image_embeds(model, pixels(model))
    embeds.sum().backward()
    torch.testing.assert_close(embeds, expected, atol=1e-5, rtol=1e-5)
    assert [tokens for tokens in work.tokens if tokens != 2][:2] == PLAIN_BLOCKS


def test_patches_and_text_are_plain_where_hooks_want_their_calls(monkeypatch):
    model = make_model()
    calls = []
    handles = [
        PATCHES(model).register_forward_hook(lambda *_: calls.append("patches")),
        model.text_model.encoder.layers[0].mlp.fc1.register_forward_hook(lambda *_: calls.append("text")),
    ]
    work = Work(monkeypatch)
    get_encoder(model).image_embeds(model, pixels(model))
    assert (work.tokens, work.convolutions, calls) == ([*LEAN_BLOCKS, *TEXT_BLOCKS], 1, ["patches", "text"])

    for handle in handles:  # as soon as they are gone
        handle.remove()
    work.tokens.clear()
    get_encoder(model).image_embeds(model, pixels(model))
    assert (work.tokens, work.convolutions) == (LEAN_BLOCKS, 1)


def test_all_is_plain_in_compiled_and_copied_models_and_under_global_hooks(monkeypatch):
    model = make_model()
    for held in (torch.compile(model, backend="eager"), nn.DataParallel(model)):
        with lean(held, model):
            assert not any("forward" in vars(module) for module in model.modules())
    work = Work(monkeypatch)
    handle = nn.modules.module.register_module_forward_hook(do_nothing)
    try:
        get_encoder(model).image_embeds(model, pixels(model))
    finally:
        handle.remove()
    assert (work.tokens, work.convolutions) == ([*PLAIN_BLOCKS, *TEXT_BLOCKS], 1)


def test_patch_tokens_and_users_calls_are_plain(monkeypatch):
    model = make_model()
    work = Work(monkeypatch)
    get_encoder(model).image_and_patch_embeds(model, pixels(model))
    get_encoder(model).vision_copy(model).with_patches(pixels(model))
    model.get_image_features(pixel_values=pixels(model))
    assert (work.tokens, work.convolutions) == ([*PLAIN_BLOCKS, *TEXT_BLOCKS, *PLAIN_BLOCKS, *PLAIN_BLOCKS], 3)


def test_pgd_finds_the_same_images(processor):
    model = make_model()
    embeds = encode_class_names(model, processor, CLASS_NAMES, "a photo of the {}")
    images = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 4
    found = []
    for each in (model, made_plain(copy.deepcopy(model))):
        classifier = ZeroShotClassifier.from_model(each, processor, embeds)
        options = dict(eps=4 / 255, norm="linf", num_steps=5, step_size=1 / 255, random_start=True)
        adversarial = pgd(classifier, images, labels, **options)
        found.append((adversarial, classifier(adversarial).argmax(1)))
    (ours, verdicts), (theirs, plain_verdicts) = found
    assert not torch.equal(ours, images) and torch.equal(verdicts, plain_verdicts)
    assert (ours == theirs).float().mean() >= 0.99


@pytest.mark.parametrize(
    ("objective", "peft_config"),
    [("pmg_aft", None), ("tecoa", None), ("fare", None), ("pmg_aft", LoraConfig(**LORA))],
    ids=["pmg_aft", "tecoa", "fare", "LoRA"],
)
def test_steps_lose_what_plain_ones_lose(tmp_path, objective, peft_config, monkeypatch):
    found = {}
    for way, model in (("lean", make_model()), ("plain", made_plain(make_model()))):
        with monkeypatch.context() as patch:
            work = Work(patch)
            trainer = make_trainer(tmp_path / way, model=model, objective=objective, peft_config=peft_config)
            trainer.train()
            found[way] = losses(trainer)
            assert (1 in work.tokens) == (way == "lean")
            # The texts are encoded by a pass of the plain model.
            assert (work.convolutions <= 1) == (way == "lean")
    assert len(found["lean"]) == 3
    assert found["lean"] == pytest.approx(found["plain"], rel=1e-5)
