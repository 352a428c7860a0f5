"""What prompts and adapters attach to a model: trained alone, switched off, copied, saved, exported and folded."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from support.tiny import CLASS_NAMES
from support.tuned import embed, images_and_texts, shake, trained, two_blocks

from hf_pmgaft import export_class_embeds, fold_into_clip, load_model
from hf_pmgaft.tuning import RAdapter, TextContext, attachment_of, make_tuning, without_tuning
from hf_pmgaft.tuning.saved import save_tuning
from hf_pmgaft.zero_shot import ClassPrompts

ATTACHED = {
    "text_context": {"num_tokens": 4},
    "class_specific": {"num_tokens": 4, "class_specific": True},
    "deep_prompts": {"num_tokens": 3, "depth": 2},
    "text_to_vision": {"num_tokens": 3, "depth": 2, "coupling": "text_to_vision"},
    "r_adapter": {"rescale": 0.8},
}


@pytest.fixture(params=sorted(ATTACHED))
def attached(request):
    options = dict(ATTACHED[request.param])
    name = {"class_specific": "text_context", "text_to_vision": "deep_prompts"}.get(request.param, request.param)
    torch.manual_seed(0)
    return make_tuning(name, options).for_classes(CLASS_NAMES).prepare(two_blocks())


def test_an_attachment_changes_what_the_model_makes_of_texts_and_nothing_once_it_is_off(attached, processor):
    shake(attached)
    plain = images_and_texts(two_blocks(), processor)
    tuned = images_and_texts(attached, processor)
    assert (tuned[1] - plain[1]).abs().max() > 1e-3
    vision = not isinstance(attached.tuning.options, TextContext)
    assert ((tuned[0] - plain[0]).abs().max() > 1e-3) == vision
    with without_tuning(attached):
        for one, other in zip(images_and_texts(attached, processor), plain, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_only_the_attachment_is_trained_and_all_of_it(attached, processor):
    shake(attached)
    attached.tuning.at_test = False
    assert trained(attached) == {name for name, _ in attached.named_parameters() if name.startswith("tuning.")}
    texts = ClassPrompts.of(attached, processor, CLASS_NAMES, "a photo of the {}").embed(attached)
    (embed(attached) @ texts.T).square().sum().backward()
    for name, parameter in attached.named_parameters():
        assert (parameter.grad is not None) == name.startswith("tuning."), name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name


def test_a_copy_has_an_attachment_of_its_own(attached, processor):
    before = images_and_texts(attached, processor)
    other = copy.deepcopy(attached)
    shake(other)
    for one, same in zip(images_and_texts(attached, processor), before, strict=True):
        torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert (images_and_texts(other, processor)[1] - before[1]).abs().max() > 1e-3


def test_a_saved_attachment_comes_back_beside_its_base_model(attached, processor, tmp_path):
    shake(attached)
    two_blocks().save_pretrained(tmp_path / "base")
    save_tuning(attached, tmp_path / "tuned", str(tmp_path / "base"))
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {"tuning.json", "tuning.safetensors"}
    for loaded in (load_model(str(tmp_path / "tuned")), load_model(str(tmp_path / "tuned"), two_blocks())):
        for one, other in zip(images_and_texts(loaded, processor), images_and_texts(attached, processor), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    with pytest.raises(ValueError, match="carries .* already.*Pass the base model"):
        make_tuning("text_context").prepare(attached)


def test_exported_class_embeddings_are_those_of_the_tuned_model(attached, processor, tmp_path):
    shake(attached)
    export_class_embeds(attached, processor, CLASS_NAMES, tmp_path / "classes.safetensors", "a photo of the {}")
    with safe_open(tmp_path / "classes.safetensors", "pt") as file:
        torch.testing.assert_close(file.get_tensor("class_embeds"), images_and_texts(attached, processor)[1])
        assert json.loads(file.metadata()["class_names"]) == CLASS_NAMES


def test_adapters_fold_exactly_and_prompts_do_not(attached, processor):
    shake(attached)
    if not isinstance(attached.tuning.options, RAdapter):
        with pytest.raises(ValueError, match="cannot be folded.*load_model.*export_class_embeds"):
            fold_into_clip(attached)
        return
    wanted = images_and_texts(attached, processor)
    folded = fold_into_clip(attached)
    assert set(folded.state_dict()) == set(two_blocks().state_dict()) and attachment_of(attached) is not None
    for one, other in zip(images_and_texts(folded, processor), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
