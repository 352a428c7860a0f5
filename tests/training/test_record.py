"""What a run says it trains on."""

import json

from support.tiny import CLASS_NAMES, make_images, make_processor
from support.trainers import make_trainer

from hf_pmgaft.fingerprints import digest_of_list


def test_a_run_records_names_templates_statistics_clipping_and_images_per_step(tmp_path):
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2, max_grad_norm=0, max_steps=1)
    trainer.train()
    trainer.save_model()
    statistics = make_processor().image_processor
    record = json.loads((tmp_path / "training_config.json").read_text())["training"]
    assert (
        record
        == trainer.training_record()
        == {
            "class_names": {"count": 4, "digest": digest_of_list(CLASS_NAMES), "first": CLASS_NAMES[:3]},
            "prompt_templates": ["a photo of the {}"],
            "image_mean": list(statistics.image_mean),
            "image_std": list(statistics.image_std),
            "max_grad_norm": None,
            "images_per_step": 16,
        }
    )


def test_learned_context_is_recorded_with_its_length(tmp_path):
    trainer = make_trainer(tmp_path, tuning="text_context", tuning_kwargs={"num_tokens": 3}, objective="apt")
    assert trainer.training_record()["learned_context"] == 3


def test_a_run_without_class_names_records_none(tmp_path):
    images = make_images().remove_columns("label")
    record = make_trainer(tmp_path, images=images, objective="fare").training_record()
    assert "class_names" not in record and "prompt_templates" not in record
    assert record["max_grad_norm"] == 1.0
