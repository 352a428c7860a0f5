"""Where learned prompts begin: as words, with or without a full stop, around the class token, or at random as ever."""

import json

import pytest
import torch
from support.tiny import CLASS_NAMES
from support.trainers import make_trainer
from support.tuned import embed, shake, two_blocks

from hf_pmgaft import encode_class_names, load_model
from hf_pmgaft.tuning import DeepPrompts, TextContext, make_tuning, options_of
from hf_pmgaft.tuning.saved import save_tuning

WORDS = {"context_words": "photo of"}
TUNINGS = {"text_context": {}, "deep_prompts": {"depth": 1}}


def prepared(name, options, processor, seed=0):
    torch.manual_seed(seed)
    tuning = make_tuning(name, options).for_classes(CLASS_NAMES).for_tokenizer(processor.tokenizer)
    return tuning.prepare(two_blocks())


@pytest.mark.parametrize("full_stop", [True, False])
@pytest.mark.parametrize("name", TUNINGS)
def test_a_context_that_begins_as_words_is_their_template(processor, name, full_stop):
    model = prepared(name, {**TUNINGS[name], **WORDS, "full_stop": full_stop}, processor)
    template = "photo of {}." if full_stop else "photo of {}"
    expected = encode_class_names(two_blocks(), processor, CLASS_NAMES, template)
    torch.testing.assert_close(encode_class_names(model, processor, CLASS_NAMES), expected)


def test_a_context_of_each_class_begins_as_the_same_words(processor):
    model = prepared("text_context", {**WORDS, "class_specific": True, "full_stop": False}, processor)
    assert model.tuning.vectors.weight.shape == (4, 2, 16)
    expected = encode_class_names(two_blocks(), processor, CLASS_NAMES, "photo of {}")
    torch.testing.assert_close(encode_class_names(model, processor, CLASS_NAMES), expected)


def test_words_have_the_number_of_their_tokens_and_another_is_refused(processor):
    tokenizer = processor.tokenizer
    tuning = DeepPrompts(context_words="a photo of the").for_tokenizer(tokenizer)
    assert tuning.num_tokens == 4 and tuning.context_ids == tokenizer("a photo of the")["input_ids"][1:-1]
    with pytest.raises(ValueError, match="num_tokens=3 and context_words='photo of', which are 2 tokens. Leave"):
        TextContext(3, **WORDS).for_tokenizer(tokenizer)
    with pytest.raises(ValueError, match="context_words=' ', which are no tokens"):
        TextContext(context_words=" ").for_tokenizer(tokenizer)
    with pytest.raises(ValueError, match=r"a tokenizer has to read first.*for_tokenizer\(tokenizer\)"):
        TextContext(**WORDS).prepare(two_blocks())


@pytest.mark.parametrize("coupling", ["vision_to_text", "text_to_vision"])
def test_vision_tokens_can_begin_around_the_class_token_and_leave_those_of_the_text(processor, coupling):
    options = {"num_tokens": 3, "depth": 2, "coupling": coupling}
    model = prepared("deep_prompts", {**options, "vision_start": "class_token"}, processor)
    random = prepared("deep_prompts", options, processor)

    plain = two_blocks().vision_model
    with torch.no_grad():
        grey = torch.zeros(1, 3, 16, 16)
        entries = [plain.embeddings(grey), plain(grey, output_hidden_states=True).hidden_states[1]]
    for block, drawn, entry in zip(model.tuning.blocks, random.tuning.blocks, entries, strict=True):
        (text, vision), (drawn_text, drawn_vision) = block(), drawn()
        torch.testing.assert_close(text, drawn_text, rtol=0, atol=1e-5)
        spread = drawn_vision - drawn_vision.mean(dim=0) if block.learned_on_text else drawn_vision
        torch.testing.assert_close(vision, entry[0, 0] + spread, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name, options",
    [
        ("text_context", {**WORDS, "full_stop": False}),
        ("text_context", {"num_tokens": 2, "full_stop": False}),
        ("deep_prompts", {**WORDS, "depth": 2, "vision_start": "class_token"}),
    ],
)
def test_the_start_and_the_full_stop_are_saved_and_come_back(processor, tmp_path, name, options):
    model = prepared(name, options, processor)
    shake(model)
    two_blocks().save_pretrained(tmp_path / "base")
    save_tuning(model, tmp_path / "tuned", base_model=str(tmp_path / "base"))
    stored = json.loads((tmp_path / "tuned" / "tuning.json").read_text())["options"]
    assert options.items() <= stored.items()

    loaded = load_model(str(tmp_path / "tuned"))
    assert loaded.tuning.options == model.tuning.options
    torch.testing.assert_close(embed(loaded), embed(model), rtol=0, atol=0)
    texts = [encode_class_names(each, processor, CLASS_NAMES) for each in (loaded, model)]
    torch.testing.assert_close(*texts, rtol=0, atol=0)


def test_what_is_at_its_default_is_written_as_before_these_options(processor):
    assert options_of(TextContext()) == {"num_tokens": 16, "class_specific": False, "class_names": None}
    assert options_of(DeepPrompts()) == {"num_tokens": 2, "depth": 9, "coupling": "vision_to_text"}
    changed = options_of(TextContext(**WORDS, full_stop=False).for_tokenizer(processor.tokenizer))
    assert list(changed) == [
        "num_tokens",
        "context_words",
        "context_ids",
        "full_stop",
        "class_specific",
        "class_names",
    ]


def test_training_reads_the_words_by_the_tokenizer_of_its_processor(tmp_path):
    options = {**WORDS, "full_stop": False}
    trainer = make_trainer(tmp_path, objective="apt", tuning="text_context", tuning_kwargs=options)
    context = trainer.model.tuning
    words = trainer.processing_class.tokenizer("photo of", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(
        context.vectors.weight, trainer.model.text_model.embeddings.token_embedding.weight[words]
    )
    assert context.options.num_tokens == 2 and "began as 'photo of', no full stop" in context.options.describe()
