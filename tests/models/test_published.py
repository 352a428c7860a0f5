"""Checkpoints that others published open by their names in one step, and compute what they did elsewhere."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.llava import equal_weights
from support.open_clip import TEXTS, features, logits, make_clip, other_clip, tecoa
from support.published import base_folder, described, open_clip_folder, saved
from support.tiny import make_images, make_model, make_processor
from support.trainers import LORA
from transformers import CLIPModel

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, load_model
from hf_pmgaft.models.published import open_model
from hf_pmgaft.models.sources import Source
from hf_pmgaft.tuning.saved import load_one_of_several, load_pair, load_processor


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def pixel_values() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


# ---- One step for each layout ----


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_an_open_clip_folder_opens_whole_with_its_own_activation_and_images(act, pixel_values, tmp_path):
    config = described(act)
    config["preprocess_cfg"] |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}
    other = open_clip_folder(tmp_path, act, config)

    model, processor = load_pair(str(tmp_path))

    close(logits(model, pixel_values), other(pixel_values, TEXTS))
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    assert list(processor.image_processor.image_std) == [0.4, 0.5, 0.6]
    assert int(processor.image_processor.resample) == 2
    assert processor.tokenizer("red disc")["input_ids"] == make_processor().tokenizer("red disc")["input_ids"]
    assert model.name_or_path == str(tmp_path)


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_a_text_tower_that_open_clip_keeps_apart_opens_too(prefix, pixel_values, tmp_path):
    config = described()
    config["model_cfg"]["custom_text"] = True
    other = open_clip_folder(tmp_path, config=config)
    apart = {
        name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": value
        for name, value in other.state_dict().items()
    }
    save_file(apart, tmp_path / "open_clip_model.safetensors")
    close(logits(load_model(f"{prefix}{tmp_path}"), pixel_values), other(pixel_values, TEXTS))


def test_a_file_of_tecoa_opens_beside_its_base(pixel_values, tmp_path):
    other = other_clip(make_clip())
    base = base_folder(tmp_path / "base")
    file = saved(tecoa(other), tmp_path / "model_best.pth.tar")

    model, processor = load_pair(str(file), base_model=str(base))

    close(features(model, pixel_values), other.visual(pixel_values))
    assert equal_weights(model, CLIPModel.from_pretrained(base), "text_")
    assert processor.image_processor.image_mean == make_processor().image_processor.image_mean
    assert model.config.name_or_path == str(file)  # not its base, beside which an adapter would mean nothing


def test_a_folder_without_a_processor_opens_with_that_of_another(pixel_values, tmp_path):
    robust = make_model(seed=3)
    robust.save_pretrained(tmp_path / "leaf")
    base = base_folder(tmp_path / "base")

    with pytest.raises(OSError, match="leaf holds no processor.*--processor ID"):
        load_pair(str(tmp_path / "leaf"))
    model, processor = load_pair(str(tmp_path / "leaf"), str(base))

    close(logits(model, pixel_values), logits(robust, pixel_values))
    assert processor.tokenizer("red disc")["input_ids"] == make_processor().tokenizer("red disc")["input_ids"]


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "model."])
def test_a_folder_of_a_wrapped_model_opens_with_its_weights(prefix, pixel_values, tmp_path):
    model = make_model(seed=5)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({prefix + name: value for name, value in weights.items()}, tmp_path / "model.safetensors")
    close(logits(load_model(str(tmp_path)), pixel_values), logits(model, pixel_values))


def test_a_folder_that_lacks_weights_is_refused_where_random_ones_would_stand(tmp_path):
    make_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({n: v for n, v in weights.items() if n != "text_projection.weight"}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lack weights of its CLIPModel, which would be random: text_projection"):
        load_model(str(tmp_path))


def test_a_tower_alone_with_its_configuration_asks_for_its_base(pixel_values, tmp_path):
    other = open_clip_folder(tmp_path / "fare")
    weights = {n: v for n, v in other.state_dict().items() if n.startswith("visual.")}
    save_file(weights, tmp_path / "fare" / "open_clip_model.safetensors")
    base = base_folder(tmp_path / "base")

    with pytest.raises(ValueError, match="holds the vision tower alone.*--base ID"):
        load_model(str(tmp_path / "fare"))
    model = load_model(str(tmp_path / "fare"), str(base))

    close(features(model, pixel_values), other.visual(pixel_values))
    assert equal_weights(model, CLIPModel.from_pretrained(base), "text_")


def test_a_trainer_takes_it_as_model_and_teacher(tmp_path):
    open_clip_folder(tmp_path / "robust")
    args = PMGAFTConfig(
        output_dir=str(tmp_path / "run"), max_steps=1, use_cpu=True, disable_tqdm=True, save_strategy="no"
    )
    name = str(tmp_path / "robust")
    with torch.enable_grad():
        trainer = PMGAFTTrainer(name, args, train_dataset=make_images(8), teacher=name)
        trainer.train()
    assert trainer.state.global_step == 1


def test_an_adapter_beside_a_file_says_that_it_needs_that_very_model(tmp_path):
    base = base_folder(tmp_path / "base")
    file = saved(other_clip(make_clip()).visual.state_dict(), tmp_path / "fare.pt")
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(load_model(str(file), str(base)), LoraConfig(**LORA))
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)

    with pytest.raises(ValueError, match=r"trained beside .*fare\.pt, which does not open by its name alone"):
        load_model(str(tmp_path / "adapter"))
    assert load_model(str(tmp_path / "adapter"), load_model(str(file), str(base))) is not None


def test_what_one_of_several_models_lacks_is_taken_from_beside_it(tmp_path):
    base = base_folder(tmp_path / "base")
    file = saved(other_clip(make_clip()).visual.state_dict(), tmp_path / "fare.pt")
    make_model().save_pretrained(tmp_path / "leaf")
    for name in (base, file, tmp_path / "leaf"):
        model, processor = load_one_of_several(str(name), str(base), str(base))
        assert isinstance(model, CLIPModel) and hasattr(processor, "tokenizer")


# ---- A base that contradicts the configuration ----


def test_a_base_of_the_other_activation_is_refused(tmp_path):
    open_clip_folder(tmp_path / "fare", "quick_gelu")
    base = base_folder(tmp_path / "base", "gelu")
    with pytest.raises(ValueError, match="vision activation is gelu, not quick_gelu"):
        load_model(str(tmp_path / "fare"), str(base))
    with pytest.raises(ValueError, match="vision activation is gelu, not quick_gelu"):
        load_model(str(tmp_path / "fare" / "open_clip_model.safetensors"), str(base))


def test_a_processor_of_other_statistics_is_refused(tmp_path):
    config = described()
    config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    open_clip_folder(tmp_path / "fare", config=config)
    with pytest.raises(ValueError, match="pixel statistics of .*base are .* in its open_clip_config.json"):
        load_processor(str(tmp_path / "fare"), base_model=str(base_folder(tmp_path / "base")))


def test_a_base_of_a_whole_model_is_refused_since_it_has_no_effect(tmp_path):
    base = base_folder(tmp_path / "base")
    with pytest.raises(ValueError, match="which is a whole model, so that it has no effect"):
        load_model(str(base), str(base))


# ---- The Hub ----


def test_a_repository_of_open_clip_opens_by_its_name_at_a_revision(hub, tmp_path, pixel_values):
    first = open_clip_folder(tmp_path / "here")
    files = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    repo = hub.put("owner/fare", files)
    second = other_clip(make_clip(), seed=8)
    save_file(second.state_dict(), tmp_path / "second.safetensors")
    repo.commits.append({**files, "open_clip_model.safetensors": (tmp_path / "second.safetensors").read_bytes()})

    newest = load_model("hf-hub:owner/fare")
    pinned = load_model("owner/fare", revision=repo.sha(0))
    named, processor = load_pair(f"owner/fare@{repo.sha(0)}")

    close(logits(newest, pixel_values), second(pixel_values, TEXTS))
    for model in (pinned, named):
        close(logits(model, pixel_values), first(pixel_values, TEXTS))
        assert model.config._commit_hash == repo.sha(0)
    assert len(processor.tokenizer) == len(make_processor().tokenizer)


def test_a_model_of_transformers_is_pinned_too(hub, tmp_path, pixel_values):
    commits = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        make_model(seed).save_pretrained(folder)
        make_processor().save_pretrained(folder)
        commits.append({path.name: path.read_bytes() for path in folder.iterdir()})
    repo = hub.put("owner/clip", commits[0])
    repo.commits.append(commits[1])

    newest, pinned = load_model("owner/clip"), load_model("owner/clip", revision=repo.sha(0))
    close(logits(newest, pixel_values), logits(make_model(2), pixel_values))
    close(logits(pinned, pixel_values), logits(make_model(1), pixel_values))
    assert pinned.config._commit_hash == repo.sha(0)
    pinned.save_pretrained(tmp_path / "saved")
    assert repo.sha(0) not in (tmp_path / "saved" / "config.json").read_text()
    with pytest.raises(OSError, match="owner/clip@nowhere is no folder here, and cannot be had from the Hub"):
        load_model("owner/clip", revision="nowhere")


# ---- What no CLIPModel can hold ----


def test_what_open_clip_alone_can_build_names_the_extra_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    config = described()
    config["model_cfg"]["vision_cfg"] |= {"no_ln_pre": True, "pool_type": "avg"}
    open_clip_folder(tmp_path, config=config)
    words = r"vision_cfg\.no_ln_pre, vision_cfg\.pool_type\); it is evaluated .*hf_pmgaft\[zoo\]"
    with pytest.raises(ImportError, match=words):
        load_model(str(tmp_path))
    with pytest.raises(ImportError, match=words):
        load_processor(str(tmp_path))


def test_a_whole_checkpoint_that_no_clip_holds_is_not_told_to_find_another_base(tmp_path):
    weights = other_clip(make_clip()).state_dict()
    weights = {name: value for name, value in weights.items() if "ln_pre" not in name}
    file = saved({**weights, "visual.trunk.stem.0.weight": torch.zeros(2)}, tmp_path / "convnext.pt")
    with pytest.raises(ValueError, match="No base would fit") as refusal:
        load_model(str(file), make_model())
    assert "Pass as base" not in str(refusal.value)


def test_a_model_is_the_same_through_the_command_and_by_hand(tmp_path):
    other = open_clip_folder(tmp_path)
    weights = open_model(Source.of(tmp_path)).state_dict()
    assert torch.equal(weights["visual_projection.weight"], other.visual.proj.T)
    assert json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]["quick_gelu"]


def test_a_config_of_timm_beside_that_of_open_clip_is_passed_by(tmp_path, pixel_values):
    other = open_clip_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base_patch32_clip_224"}))
    close(logits(load_model(str(tmp_path)), pixel_values), other(pixel_values, TEXTS))


def test_transformers_goes_first_where_a_repository_has_both_layouts(tmp_path, pixel_values):
    open_clip_folder(tmp_path)
    ours = make_model(seed=9)
    ours.save_pretrained(tmp_path)
    close(logits(load_model(str(tmp_path)), pixel_values), logits(ours, pixel_values))


def test_a_trainer_refuses_what_is_evaluated_alone(tmp_path):
    from hf_pmgaft.models.open_clip_model import OpenClipModel

    model = OpenClipModel(torch.nn.Linear(3, 8), 16, 8, 77, "owner/convnext")
    with pytest.raises(TypeError, match="owner/convnext, which no CLIPModel can hold.*neither trained"):
        PMGAFTTrainer(model, PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True), processing_class=make_processor())
    shutil.rmtree(tmp_path)
