"""What cannot work is refused with one message: what was passed, why it cannot work, what to change."""

import datasets
import pytest
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from support.tiny import make_images, make_model, make_processor
from support.trainers import make_trainer
from torch import nn

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer
from hf_pmgaft.config import check_output_dir


@pytest.fixture(scope="module")
def eight() -> datasets.Dataset:
    return make_images(8)


def config(**options) -> PMGAFTConfig:
    return PMGAFTConfig(use_cpu=True, **options)


# ---- Model, teacher, adapter ----


def test_models_that_are_no_dual_encoder_or_come_alone_are_refused(tmp_path, eight):
    with pytest.raises(TypeError, match="You passed a Linear, but .*image and a text tower. Pass one of: .*CLIPModel"):
        make_trainer(tmp_path, eight, nn.Linear(2, 2))
    with pytest.raises(ValueError, match="without its processor.*Pass `processing_class=CLIPProcessor"):
        PMGAFTTrainer(make_model(), config(output_dir=str(tmp_path)), train_dataset=eight)
    with pytest.raises(TypeError, match="holds no pixel statistics.*Pass the model's CLIPProcessor"):
        args = config(output_dir=str(tmp_path))
        PMGAFTTrainer(make_model(), args, train_dataset=eight, processing_class=make_processor().tokenizer)


def test_teachers_that_cannot_guide_are_refused(tmp_path, eight):
    model = make_model()
    with pytest.raises(ValueError, match="the model itself as its teacher.*Leave `teacher` out"):
        make_trainer(tmp_path, eight, model, teacher=model)
    adapted = get_peft_model(model, LoraConfig(target_modules=r"vision_model\..*\.q_proj"))
    with pytest.raises(ValueError, match="the model itself as its teacher"):
        make_trainer(tmp_path, eight, adapted, teacher=model)
    with pytest.raises(ValueError, match=r"width are \(16, 16\), the model's \(16, 24\).*Pass a teacher of the"):
        make_trainer(tmp_path, eight, teacher=make_model(projection_dim=16))
    with pytest.raises(TypeError, match="You passed a Linear"):
        make_trainer(tmp_path, eight, teacher=nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["nothing"]}, "target_modules {'nothing'} match nothing.*vision;.*'q_proj'"),
        ({"target_modules": "nothing"}, "'nothing' match nothing in the towers"),
        ({"target_modules": ["text_projection"]}, r"match nothing in the towers asked for \(vision"),
        ({"target_modules": ["q_proj"], "bias": "lora_only"}, 'own vision_model.*bias.*teacher.*Use bias="none"'),
    ],
)
def test_adapters_that_cannot_be_trained_are_refused(tmp_path, eight, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, eight, peft_config=LoraConfig(**options))


def test_a_peft_config_beside_adapters_or_blocks_is_refused(tmp_path, eight):
    lora = LoraConfig(target_modules=["q_proj"])
    inside = LoraConfig(target_modules=r"vision_model\..*\.q_proj")
    with pytest.raises(ValueError, match="already has adapters.*merge_and_unload"):
        make_trainer(tmp_path, eight, get_peft_model(make_model(), inside), peft_config=lora)
    for options in ({"peft_config": lora}, {"model": get_peft_model(make_model(), inside)}):
        with pytest.raises(ValueError, match="an adapter and tuning='last_blocks'.*Pass one of them"):
            make_trainer(tmp_path, eight, tuning="last_blocks", **options)


def test_models_with_adapters_without_a_switch_are_refused(tmp_path, eight):
    lora, model = LoraConfig(target_modules=["q_proj"]), make_model()
    inject_adapter_in_model(lora, model)
    with pytest.raises(ValueError, match="CLIPModel with adapter layers inside.*cannot be switched off"):
        make_trainer(tmp_path, eight, model)


# ---- Places ----


def test_an_output_folder_that_cannot_be_written_is_refused_before_training(tmp_path, eight):
    (tmp_path / "file").write_text("")
    for check in (check_output_dir, lambda folder: make_trainer(folder, eight)):
        with pytest.raises(ValueError, match="output_dir .*cannot be written to.*Not a directory.*Pass a folder"):
            check(tmp_path / "file" / "out")


def test_resuming_from_nothing_is_refused(tmp_path, eight):
    trainer = make_trainer(tmp_path, eight)
    with pytest.raises(
        ValueError, match="no complete checkpoint to resume from.*Start without resume_from_checkpoint"
    ):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="nowhere' cannot be resumed from: there is no such folder"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "nowhere"))
    assert trainer.state.global_step == 0
