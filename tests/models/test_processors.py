import json

from support.paths import ROOT
from support.tiny import make_processor
from support.trainers import make_trainer
from transformers import AutoProcessor

from hf_pmgaft.models.processors import save_processor

EMOJI = ROOT / "examples/emoji/model"


def call(tokenizer):
    return tokenizer(["a photo", "a"], padding=True, truncation=True, max_length=5)


def test_a_saved_tokenizer_is_byte_for_byte_that_of_the_base_whatever_it_was_called_with(tmp_path):
    processor = AutoProcessor.from_pretrained(EMOJI)
    call(processor.tokenizer)
    state = processor.tokenizer.backend_tokenizer.to_str()

    save_processor(processor, tmp_path)

    assert (tmp_path / "tokenizer.json").read_bytes() == (EMOJI / "tokenizer.json").read_bytes()
    assert processor.tokenizer.backend_tokenizer.to_str() == state


def test_a_tokenizer_of_no_file_is_saved_without_truncation_and_padding(tmp_path):
    processor = make_processor()
    call(processor.tokenizer)

    save_processor(processor, tmp_path)

    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["truncation"] is None and saved["padding"] is None


def test_an_image_processor_is_saved_too(tmp_path):
    save_processor(make_processor().image_processor, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"preprocessor_config.json"}


def test_a_trainer_saves_the_base_s_tokenizer_in_files_that_others_can_read(tmp_path):
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=3, ema_decay=0.9)
    trainer.train()
    trainer.save_model()

    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        assert json.loads((folder / "tokenizer.json").read_text())["truncation"] is None
    (tmp_path / "other").touch()
    modes = {file.name: file.stat().st_mode for file in tmp_path.rglob("*") if file.is_file()}
    assert {name for name, mode in modes.items() if mode != modes["other"]} == set()
