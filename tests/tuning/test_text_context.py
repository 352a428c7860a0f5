"""Learned context of the texts: where it stands, whom it serves, what fits."""

import pytest
import torch
from support.tiny import CLASS_NAMES
from support.tuned import two_blocks

from hf_pmgaft import encode_class_names
from hf_pmgaft.tuning import TextContext, without_tuning
from hf_pmgaft.zero_shot import ClassPrompts


def test_context_stands_between_start_token_and_name(processor):
    model = TextContext(num_tokens=2).prepare(two_blocks())
    prompts = ClassPrompts.of(model, processor, CLASS_NAMES, "a photo of the {}")
    start, name = processor.tokenizer.bos_token_id, processor.tokenizer("red disc.")["input_ids"][1:]
    assert prompts.num_templates == 1
    assert prompts.input_ids[0].tolist() == [start] * 3 + name
    # With the token embeddings of two words in its place, the context is those words.
    words = processor.tokenizer("photo of")["input_ids"][1:-1]
    model.tuning.vectors.weight.data = model.text_model.embeddings.token_embedding.weight[words].detach().clone()
    with without_tuning(model):
        expected = encode_class_names(model, processor, CLASS_NAMES, "photo of {}.")
    torch.testing.assert_close(encode_class_names(model, processor, CLASS_NAMES), expected)


def test_context_of_each_class_serves_its_own_list_alone(processor):
    model = TextContext(4, class_specific=True).for_classes(CLASS_NAMES).prepare(two_blocks())
    assert model.tuning.vectors.weight.shape == (4, 4, 16)
    before = encode_class_names(model, processor, CLASS_NAMES)
    model.tuning.vectors.weight.data[2] += torch.randn(4, 16)
    moved = (encode_class_names(model, processor, CLASS_NAMES) - before).abs().amax(1) > 1e-5
    assert moved.tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="4 classes to prompts whose context was learned for each of 4 others"):
        encode_class_names(model, processor, CLASS_NAMES[::-1])


def test_context_that_leaves_no_room_for_a_name_is_refused_with_what_fits(processor):
    model = TextContext(num_tokens=14).prepare(two_blocks())
    with pytest.raises(ValueError, match="14 tokens.*take 19 of its 16 text positions.*num_tokens=11 or fewer"):
        encode_class_names(model, processor, CLASS_NAMES)
    fits = TextContext(num_tokens=11).prepare(two_blocks())
    assert encode_class_names(fits, processor, CLASS_NAMES).shape == (4, 24)
