"""The model that is evaluated and saved: averages and mixes of its weights, and what a tuning attached."""

import numpy as np
import pytest
import torch
from support.tiny import CLASS_NAMES, make_images
from support.trainers import make_trainer
from transformers import TrainerCallback

from hf_pmgaft import encode_class_names, load_model


def test_mix_with_the_original_is_evaluated_and_saved_also_after_a_resume(tmp_path):
    options = {"wise_ft": 0.25, "max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(tmp_path, **options)
    original = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    tuned = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert not torch.equal(tuned["visual_projection.weight"], original["visual_projection.weight"])
    expected = {name: 0.75 * value + 0.25 * tuned[name] for name, value in original.items()}
    with trainer.evaluation_model() as model:
        torch.testing.assert_close(dict(model.state_dict()), expected)
    torch.testing.assert_close(dict(trainer.model.state_dict()), tuned, rtol=0, atol=0)
    trainer.save_model(str(tmp_path / "saved"))
    torch.testing.assert_close(dict(load_model(str(tmp_path / "saved")).state_dict()), expected)
    resumed = make_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    with resumed.evaluation_model() as model:
        torch.testing.assert_close(dict(model.state_dict()), expected)


def test_mix_takes_the_moving_average_for_the_tuned_weights(tmp_path):
    trainer = make_trainer(tmp_path, wise_ft=0.25, ema_decay=0.5, max_steps=3)
    original = trainer.model.visual_projection.weight.detach().clone()
    trainer.train()
    average = trainer.average.values["visual_projection.weight"]
    with trainer.evaluation_model() as model:
        torch.testing.assert_close(model.visual_projection.weight, 0.75 * original + 0.25 * average)


def test_average_is_evaluated_and_saved_and_training_goes_on_from_the_weights(tmp_path):
    trainer = make_trainer(tmp_path, ema_decay=0.9, max_steps=3, eval_dataset=make_images(8))
    weight, seen = trainer.model.visual_projection.weight, []
    expected = weight.detach().clone()

    class Follow(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(weight.detach().clone())

    trainer.add_callback(Follow())
    trainer.train()
    for value in seen:
        expected = 0.9 * expected + 0.1 * value
    with trainer.evaluation_model() as model:
        torch.testing.assert_close(model.visual_projection.weight, expected)
    assert torch.equal(trainer.model.visual_projection.weight, seen[-1])
    trainer.save_model(str(tmp_path / "saved"))
    torch.testing.assert_close(load_model(str(tmp_path / "saved")).visual_projection.weight, expected)
    plain = make_trainer(tmp_path / "plain", max_steps=3)
    plain.train()
    assert torch.equal(plain.model.visual_projection.weight, seen[-1])


def test_before_the_first_step_the_model_is_evaluated_as_it_came(tmp_path):
    plain = make_trainer(tmp_path / "plain", eval_dataset=make_images(8))
    for tuning in ("text_context", "deep_prompts"):
        options = {"tuning": tuning, "tuning_kwargs": {"num_tokens": 2, **({"depth": 1} if tuning[0] == "d" else {})}}
        trainer = make_trainer(tmp_path / tuning, eval_dataset=make_images(8), max_steps=1, **options)
        assert trainer.evaluate_robustness().to_dict()["sets"] == plain.evaluate_robustness().to_dict()["sets"]
        want = plain.predict(make_images(4)).predictions
        np.testing.assert_allclose(trainer.predict(make_images(4)).predictions, want, rtol=0, atol=1e-5)
        trainer.train()
        assert abs(trainer.predict(make_images(4)).predictions - want).max() > 1e-3
        again = make_trainer(tmp_path / "again", model=trainer.model, eval_dataset=make_images(8))
        assert abs(again.predict(make_images(4)).predictions - want).max() > 1e-3


@pytest.mark.parametrize("tuning", ["text_context", "deep_prompts", "r_adapter"])
def test_training_and_evaluation_read_the_same_prompts(tmp_path, tuning):
    options = {"text_context": {"num_tokens": 3}, "deep_prompts": {"num_tokens": 3, "depth": 1}, "r_adapter": {}}
    trainer = make_trainer(tmp_path, tuning=tuning, tuning_kwargs=options[tuning], max_steps=2, learning_rate=1e-2)
    trainer.train()
    with trainer.evaluation_model() as model:
        evaluated = encode_class_names(model, trainer.processing_class, CLASS_NAMES, "a photo of the {}")
        trained = trainer.step.live_texts(model)["class_embeds"]
    torch.testing.assert_close(trained, evaluated)
    assert (trained - trainer.class_embeds).abs().max() > 1e-3
    if tuning != "r_adapter":  # start token, places, name, end token
        start = trainer.processing_class.tokenizer.bos_token_id
        assert trainer.step.live_prompts["class_embeds"].input_ids[:, :4].eq(start).all()
