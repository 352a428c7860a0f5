"""Robust checkpoints in open_clip's format: those that others publish, and one's own."""

import copy
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.llava import equal_weights, make_llava, tuned_by_lora
from support.open_clip import TEXTS, OpenClip, fare, features, logits, make_clip, other_clip, parallel, tecoa
from support.paths import ROOT
from support.tiny import CLASS_NAMES, draw, make_images, make_model, make_processor
from support.trainers import make_trainer
from torch import nn
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    CLIPModel,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from hf_pmgaft import (
    ZeroShotDataset,
    evaluate_robustness,
    load_model,
    load_open_clip,
    save_open_clip,
    to_open_clip,
    vision_tower,
)
from hf_pmgaft.models.open_clip_config import open_clip_config
from hf_pmgaft.models.weights import read_weights


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


# --- checkpoints of open_clip's kind


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_whole_open_clip_checkpoint_gives_equal_logits(act, pixel_values, tmp_path):
    base = make_clip(act)
    other, before = other_clip(base), copy.deepcopy(base)
    torch.save(other.state_dict(), tmp_path / "open_clip.pt")

    model = load_open_clip(tmp_path / "open_clip.pt", base)

    torch.testing.assert_close(logits(model, pixel_values), other(pixel_values, TEXTS), rtol=1e-5, atol=1e-5)
    assert equal_weights(base, before)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_open_clip_gives_equal_logits_with_our_weights(act, pixel_values):
    model = make_clip(act)
    other = OpenClip(model.config).eval()

    other.load_state_dict(to_open_clip(model))  # strict

    torch.testing.assert_close(other(pixel_values, TEXTS), logits(model, pixel_values), rtol=1e-5, atol=1e-5)


def test_there_and_back_changes_no_bit(tmp_path):
    model = make_clip()
    torch.save(to_open_clip(model), tmp_path / "open_clip.pt")

    assert equal_weights(model, load_open_clip(tmp_path / "open_clip.pt", make_clip(seed=1)))


def test_adapters_are_folded_in_on_the_way_to_open_clip(pixel_values):
    tuned = tuned_by_lora()
    other = OpenClip(tuned.get_base_model().config).eval()

    other.load_state_dict(to_open_clip(tuned))

    torch.testing.assert_close(other(pixel_values, TEXTS), logits(tuned, pixel_values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", [fare, tecoa, parallel])
def test_published_vision_tower_gives_equal_features_beside_the_text_tower_of_its_base(layout, pixel_values, tmp_path):
    base = make_clip()
    other = other_clip(base)
    torch.save(layout(other), tmp_path / "vision.pth.tar")

    model = load_open_clip(tmp_path / "vision.pth.tar", base)

    torch.testing.assert_close(features(model, pixel_values), other.visual(pixel_values), rtol=1e-5, atol=1e-5)
    assert equal_weights(model, base, "text_") and equal_weights(model, base, "logit_scale")
    assert not equal_weights(model, base, "vision_model.")


def test_accuracies_of_numpy_1_are_read_too(tmp_path):
    content = {"state_dict": {"conv1.weight": torch.ones(1)}, "best_acc1": np.float64(1)}
    torch.save(content, tmp_path / "new.pt", _use_new_zipfile_serialization=False)
    new = (tmp_path / "new.pt").read_bytes()
    old = new.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert old != new
    (tmp_path / "old.pt").write_bytes(old)

    assert read_weights(tmp_path / "old.pt")["conv1.weight"] == 1


def test_checkpoint_of_open_clips_training_gives_equal_logits(pixel_values, tmp_path):
    base = make_clip()
    other = other_clip(base)
    weights = {f"module.{name}": value for name, value in other.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": weights}, tmp_path / "epoch_3.pt")

    model = load_open_clip(tmp_path / "epoch_3.pt", base)

    torch.testing.assert_close(logits(model, pixel_values), other(pixel_values, TEXTS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_folder_as_open_clip_pushes_it_gives_equal_logits(name, pixel_values, tmp_path):
    base = make_clip()
    base.save_pretrained(tmp_path / "base")
    other = other_clip(base)
    (tmp_path / "open_clip").mkdir()
    {"s": save_file, "b": torch.save}[name.rpartition(".")[2][0]](other.state_dict(), tmp_path / "open_clip" / name)

    model = load_open_clip(tmp_path / "open_clip", str(tmp_path / "base"))

    torch.testing.assert_close(logits(model, pixel_values), other(pixel_values, TEXTS), rtol=1e-5, atol=1e-5)


def test_vision_tower_under_the_names_of_transformers_gives_equal_features(robust, pixel_values, tmp_path):
    tuned = CLIPVisionModelWithProjection.from_pretrained(robust)
    torch.save(tuned.state_dict(), tmp_path / "tower.pt")

    model = load_open_clip(tmp_path / "tower.pt", make_model(seed=4))

    torch.testing.assert_close(features(model, pixel_values), tuned(pixel_values).image_embeds)


def test_bare_vision_model_lacks_its_projection_and_opens_where_none_is_needed(robust, pixel_values, tmp_path):
    tuned = CLIPVisionModel.from_pretrained(robust)
    torch.save(tuned.state_dict(), tmp_path / "tower.pt")

    with pytest.raises(ValueError, match=r"missing: visual_projection\.weight\. Every base has them"):
        load_open_clip(tmp_path / "tower.pt", make_model())

    plain = CLIPVisionModel(tuned.config).eval()
    plain.load_state_dict(read_weights(tmp_path / "tower.pt"))
    torch.testing.assert_close(plain(pixel_values).pooler_output, tuned(pixel_values).pooler_output)


def test_published_tower_is_evaluated_and_trained_on(tmp_path):
    other = other_clip(make_model())
    torch.save(fare(other), tmp_path / "fare.pt")
    model, processor = load_open_clip(tmp_path / "fare.pt", make_model()), make_processor()
    data = ZeroShotDataset(make_images(8), processor, CLASS_NAMES, "a photo of the {}")

    report = evaluate_robustness(
        model, processor, {"shapes": data}, [{"attack": "pgd", "eps": "8/255", "num_steps": 2}]
    )
    start = copy.deepcopy(model)
    with torch.enable_grad():
        make_trainer(tmp_path / "run", model=model, max_steps=1).train()

    assert report.sets[0].num_samples == 8
    assert equal_weights(start, load_open_clip(tmp_path / "fare.pt", make_model()))
    assert not equal_weights(model, start, "vision_model.")


# --- checkpoints that do not fit, or are none


def without(name):
    return lambda weights: {n: v for n, v in weights.items() if n != name}


@pytest.mark.parametrize(
    "change, message",
    [
        (
            without("transformer.resblocks.1.attn.in_proj_bias"),
            r"missing: transformer\.resblocks\.1\.attn\.in_proj_bias\.",
        ),
        (without("proj"), r"missing: proj\."),
        (lambda w: {**w, "prompt_pos_embedding": torch.zeros(2)}, r"unexpected: prompt_pos_embedding\."),
        (lambda w: {**w, "proj": w["proj"].T}, r"proj is \[24, 32\] in place of \[32, 24\]"),
        (lambda w: {**w, "ln_pre.bias": torch.zeros(7)}, r"ln_pre\.bias is \[7\] in place of \[32\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, tmp_path):
    base = make_clip()
    torch.save(change(fare(other_clip(base))), tmp_path / "fare.pt")

    with pytest.raises(ValueError, match=message):
        load_open_clip(tmp_path / "fare.pt", base)


def test_a_missing_weight_of_the_text_tower_is_named_not_taken_from_the_base(tmp_path):
    base = make_clip()
    torch.save(without("ln_final.bias")(other_clip(base).state_dict()), tmp_path / "open_clip.pt")

    with pytest.raises(ValueError, match=r"missing: ln_final\.bias\."):
        load_open_clip(tmp_path / "open_clip.pt", base)


def test_another_architecture_is_named_in_ten_keys_not_in_hundreds(tmp_path):
    torch.save({f"layer{i}.weight": torch.zeros(1) for i in range(30)}, tmp_path / "resnet.pt")

    with pytest.raises(ValueError, match=r"layer0\.weight, .* and 20 more") as refusal:
        load_open_clip(tmp_path / "resnet.pt", make_model())

    assert len(str(refusal.value)) < 1500


class Malicious:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("save", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content, 2))])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(save, tmp_path):
    weights = fare(other_clip(make_model()))
    save({"state_dict": weights, "args": Malicious(tmp_path / "created")}, tmp_path / "evil.pt")

    with pytest.raises(ValueError, match="cannot be read as plain weights") as refusal:
        load_open_clip(tmp_path / "evil.pt", make_model())

    assert not (tmp_path / "created").exists()
    assert "weights_only" not in str(refusal.value)  # no hint how to do it all the same
    pickle.loads(pickle.dumps(Malicious(tmp_path / "created"))).close()
    assert (tmp_path / "created").exists()  # it would have


def test_what_a_pickle_asks_for_is_named(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")

    with pytest.raises(
        ValueError, match=r"asks for torch\.nn\.modules\.linear\.Linear.*torch\.save\(model\.state_dict"
    ):
        read_weights(tmp_path / "module.pt")


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 64])
def test_damaged_files_are_refused(name, damage, tmp_path):
    weights = {"conv1.weight": torch.ones(100)}
    save_file(weights, tmp_path / name) if name.endswith("s") else torch.save(weights, tmp_path / name)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))

    with pytest.raises(ValueError, match=f"{name} cannot be read as plain weights: it is damaged"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [{}, {"epoch": 1}, torch.ones(2), [1], {"state_dict": {"lr": 0.1}}])
def test_files_without_weights_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "file.pt")

    with pytest.raises(ValueError, match="holds no state dict"):
        read_weights(tmp_path / "file.pt")


def test_a_checkpoint_that_is_not_there_is_said_so(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="folder is no file, nor does it hold open_clip_model.safetensors"):
        load_open_clip(tmp_path / "folder", make_model())
    with pytest.raises(FileNotFoundError, match=r"fare_eps_2\.pt', but there is no such file or folder"):
        load_open_clip(tmp_path / "fare_eps_2.pt", make_model())


def test_another_dual_encoder_has_no_names_in_open_clip():
    tiny = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    text = dict(**tiny, vocab_size=9, project_dim=8)
    model = AltCLIPModel(AltCLIPConfig(text_config=text, vision_config={**tiny, "image_size": 8, "patch_size": 4}))
    with pytest.raises(TypeError, match="You passed a AltCLIPModel"):
        to_open_clip(model)


# --- open_clip itself


@pytest.mark.parametrize("act, eos", [("gelu", 1), ("quick_gelu", 1), ("quick_gelu", 31)])
def test_open_clip_opens_what_is_saved_for_it_with_equal_logits(act, eos, pixel_values, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    model, processor = make_clip(act), make_processor()
    model.config.text_config.eos_token_id = model.text_model.config.eos_token_id = eos
    model = CLIPModel(model.config).eval()
    save_open_clip(model, processor, tmp_path)

    other, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a photo of the red disc", "a blue square"])
    if eos == 31:  # as the highest id, by which open_clip pools unless told otherwise
        ids[:, 9] = 31
    texts, image = other.eval().encode_text(ids), draw(0, np.random.default_rng(0))
    found = (
        other.logit_scale.exp() * other.encode_image(pixel_values, normalize=True) @ nn.functional.normalize(texts).T
    )

    torch.testing.assert_close(found, logits(model, pixel_values, ids), rtol=1e-5, atol=1e-5)
    expected = processor.image_processor(image, return_tensors="pt").pixel_values[0]
    assert (transform(image) - expected).abs().max() <= 1.01 / 255 / min(processor.image_processor.image_std)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_what_open_clip_saves_opens_with_equal_logits(act, pixel_values, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    base = make_clip(act)
    save_open_clip(base, make_processor(), tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]
    torch.manual_seed(11)
    other = open_clip.CLIP(**config).eval()
    torch.save(other.state_dict(), tmp_path / "whole.pt")
    torch.save(other.visual.state_dict(), tmp_path / "visual.pt")

    whole, visual = load_open_clip(tmp_path / "whole.pt", base), load_open_clip(tmp_path / "visual.pt", base)

    ids = nn.functional.pad(TEXTS, (0, 11), value=1)
    images, texts, scale, *_ = other(pixel_values, ids)
    torch.testing.assert_close(logits(whole, pixel_values, ids), scale * images @ texts.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features(visual, pixel_values), other.encode_image(pixel_values), rtol=1e-5, atol=1e-5)


def test_open_clip_configuration_has_the_inner_width_after_its_rounding():
    model = make_model()
    model.config.vision_config.intermediate_size = 4304
    model.config.vision_config.hidden_size = 1152

    tower = open_clip_config(model.config, make_processor())["model_cfg"]["vision_cfg"]
    assert int(tower["width"] * tower["mlp_ratio"]) == 4304


def test_towers_of_two_activations_have_no_open_clip_configuration(tmp_path):
    model = make_model()
    model.config.vision_config.hidden_act = "gelu"
    with pytest.raises(ValueError, match="activations gelu and quick_gelu"):
        save_open_clip(model, make_processor(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- the README


def test_snippets_of_the_page_run(robust, pixel_values, tmp_path, monkeypatch):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs/downstream.md").read_text(), re.S))
    monkeypatch.chdir(tmp_path)
    make_llava(torch.float16).save_pretrained("llava")
    other = other_clip(make_model())
    torch.save(fare(other), "fare_eps_2.pt")
    names = {"llava-hf/llava-1.5-7b-hf": "llava", "user/clip-pmgaft": robust, "openai/clip-vit-large-patch14": robust}
    for name, local in names.items():
        assert name in code
        code = code.replace(name, str(local))

    exec(code, found := {})

    assert equal_weights(vision_tower(found["llava"]), vision_tower(load_model(str(robust)).half()))
    torch.testing.assert_close(features(found["fare"], pixel_values), other.visual(pixel_values), rtol=1e-5, atol=1e-5)
    assert equal_weights(found["fare"], load_open_clip("fare2-open-clip", str(robust)))
    exported = torch.export.load("tower.pt2").module()(pixel_values)["image_embeds"]
    torch.testing.assert_close(exported, features(CLIPModel.from_pretrained(robust), pixel_values))


def saved_for_open_clip(model: CLIPModel, processor, folder: Path) -> dict:
    save_open_clip(model, processor, folder)
    return json.loads((folder / "open_clip_config.json").read_text())


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_open_clip_configuration_is_written_field_by_field(act, tmp_path):
    model, processor = make_clip(act, projection_dim=20, text_layers=3), make_processor()
    model.config.vision_config.layer_norm_eps, model.config.text_config.layer_norm_eps = 1e-4, 1e-6
    processor.image_processor.image_mean, processor.image_processor.image_std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]

    assert saved_for_open_clip(model, processor, tmp_path) == {
        "model_cfg": {
            "embed_dim": 20,
            "quick_gelu": act == "quick_gelu",
            "vision_cfg": {
                "layers": 2,
                "width": 32,
                "mlp_ratio": 2.0,
                "norm_kwargs": {"eps": 1e-4},
                "image_size": 16,
                "patch_size": 4,
                "head_width": 16,
            },
            "text_cfg": {
                "layers": 3,
                "width": 16,
                "mlp_ratio": 2.0,
                "norm_kwargs": {"eps": 1e-6},
                "heads": 2,
                "context_length": 16,
                "vocab_size": 32,
                "pool_type": "eos",
                "eos_id": 1,
                "hf_tokenizer_name": "local",
            },
        },
        "preprocess_cfg": {
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def test_open_clip_reads_its_own_tokenizer_for_the_vocabulary_of_clip(tmp_path):
    model = make_model()
    model.config.text_config.vocab_size = 49408
    assert "hf_tokenizer_name" not in open_clip_config(model.config, make_processor())["model_cfg"]["text_cfg"]


def pooled(hidden: torch.Tensor, ids: torch.Tensor, pool_type: str = "argmax", eos_id: int = 2) -> torch.Tensor:
    """How open_clip picks one token of each text, with the defaults of its configuration."""
    place = {"argmax": ids.argmax(1), "eos": (ids == eos_id).int().argmax(1)}[pool_type]
    return hidden[torch.arange(len(ids)), place]


@pytest.mark.parametrize("eos", [1, 2, 7, 31])
def test_open_clip_pools_a_text_at_the_token_where_the_model_does(eos, tmp_path):
    model = make_model()
    model.config.text_config.eos_token_id = eos
    model = CLIPModel(model.config).eval()
    # The end token stands in the middle; another one is the highest, unless the end token is.
    ids = torch.tensor([[0, 9, 5, eos, 4, 3, 4], [0, 3, eos, 12, 4, 5, 5]])
    config = saved_for_open_clip(model, make_processor(), tmp_path)["model_cfg"]["text_cfg"]
    output = model.text_model(input_ids=ids)

    found = pooled(
        output.last_hidden_state, ids, **{key: config[key] for key in ("pool_type", "eos_id") & config.keys()}
    )
    assert torch.equal(found, output.pooler_output)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_open_clip_resizes_as_the_processor_does(mode, interpolation, tmp_path):
    processor, filters = make_processor(), {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
    images = processor.image_processor
    images.resample = filters[interpolation]
    images.size = {"shortest_edge": 16} if mode == "shortest" else {"height": 16, "width": 16}

    preprocess = saved_for_open_clip(make_model(), processor, tmp_path)["preprocess_cfg"]

    assert (preprocess["resize_mode"], preprocess["interpolation"]) == (mode, interpolation)
    # What these words mean to open_clip, in Pillow: the shorter edge and a crop, or both edges.
    picture = draw(2, np.random.default_rng(0)).resize((40, 20))
    size, left = ((32, 16), 8) if preprocess["resize_mode"] == "shortest" else ((16, 16), 0)
    small = picture.resize(size, filters[preprocess["interpolation"]]).crop((left, 0, left + 16, 16))
    pixels = torch.from_numpy(np.asarray(small) / 255).permute(2, 0, 1)
    mean, std = (torch.tensor(preprocess[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = images(picture, return_tensors="pt").pixel_values[0]
    assert ((pixels - mean) / std - expected).abs().max() <= 1.01 / 255 / min(images.image_std)
