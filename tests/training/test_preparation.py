import copy
import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from support.tiny import CLASS_NAMES, make_model, make_processor
from support.trainers import LORA, digest, make_trainer
from transformers import AutoModel, CLIPVisionModel

from hf_pmgaft import AdversarialStep, load_model
from hf_pmgaft.models.precision import other_dtypes


def rounded(dtype=torch.bfloat16):
    """A float32 model whose weights another dtype holds exactly."""
    return make_model().to(dtype).float()


def mixed():
    model = rounded().to(torch.bfloat16)
    model.visual_projection.float()
    return model


@pytest.mark.parametrize("make_half", [lambda: rounded().to(torch.bfloat16), mixed, lambda: rounded().double()])
def test_a_model_in_another_dtype_is_the_run_of_its_float32_weights(tmp_path, caplog, make_half):
    expected = make_trainer(tmp_path / "a", model=rounded())
    expected.train()
    assert not [record for record in caplog.records if "in float32" in record.message]

    half = make_half()
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path / "b", model=half)
    trainer.train()

    assert [record for record in caplog.records if "converted in place" in record.message]
    assert (
        trainer.model is half
        and digest(trainer) == digest(expected)
        and trainer.fingerprint()["weights"] == (expected.fingerprint()["weights"])
    )


def test_its_folder_loads_in_float32_in_any_way(tmp_path):
    rounded().to(torch.float16).save_pretrained(tmp_path / "half")
    trainer = make_trainer(tmp_path, model=AutoModel.from_pretrained(tmp_path / "half"))

    trainer.save_model()

    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}
    assert CLIPVisionModel.from_pretrained(tmp_path).dtype == torch.float32


def test_an_optimizer_of_one_s_own_moves_the_converted_weights(tmp_path):
    model = rounded().to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = make_trainer(tmp_path, model=model, optimizers=(optimizer, None), max_steps=1)
    before = digest(trainer)

    trainer.train()

    assert digest(trainer) != before


def test_adapters_of_a_half_model_are_trained_and_saved_in_float32(tmp_path):
    half = rounded().to(torch.bfloat16)
    adapted = get_peft_model(rounded().to(torch.bfloat16), LoraConfig(**LORA), autocast_adapter_dtype=False)
    for name, options in {
        "config": {"model": half, "peft_config": LoraConfig(**LORA)},
        "adapted": {"model": adapted},
    }.items():
        trainer = make_trainer(tmp_path / name, **options)
        assert not other_dtypes(trainer.model)

        trainer.save_model()

        saved = load_file(tmp_path / name / "adapter_model.safetensors")
        assert {value.dtype for value in saved.values()} == {torch.float32}


def test_a_half_teacher_guides_as_a_copy_in_float32(tmp_path):
    teacher = rounded().to(torch.bfloat16)
    before = copy.deepcopy(teacher.state_dict())
    expected = make_trainer(tmp_path / "a", teacher=rounded())
    expected.train()

    trainer = make_trainer(tmp_path / "b", teacher=teacher)
    trainer.train()

    assert digest(trainer) == digest(expected)
    assert teacher.dtype == torch.bfloat16
    torch.testing.assert_close(dict(teacher.state_dict()), dict(before), rtol=0, atol=0)


def test_a_loop_of_one_s_own_computes_in_float32_too():
    half = rounded().to(torch.bfloat16)

    AdversarialStep.of(half, make_processor(), CLASS_NAMES, eps="8/255")

    assert not other_dtypes(half)


def test_a_half_folder_and_a_half_object_are_the_same_run(tmp_path):
    rounded().to(torch.bfloat16).save_pretrained(tmp_path / "half")
    by_name = make_trainer(tmp_path / "a", model=load_model(str(tmp_path / "half")))
    by_object = make_trainer(tmp_path / "b", model=AutoModel.from_pretrained(tmp_path / "half"))

    assert digest(by_name) == digest(by_object)
