"""One training step, its logs, accumulation, precision, adapters, evaluation and prediction."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig
from support.tiny import CLASS_NAMES, fit_model, make_images, make_model, make_processor
from support.trainers import LORA, losses, make_trainer, state
from transformers import CLIPModel, CLIPProcessor, TrainerCallback

from hf_pmgaft import AdversarialStep, PMGAFTConfig, PMGAFTTrainer
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.evaluation.reader import Reader
from hf_pmgaft.zero_shot import Views, ZeroShotClassifier, encode_class_names


def test_the_attack_leaves_no_gradient_and_the_step_descends_on_the_objective_alone(tmp_path):
    trainer = make_trainer(tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    images = torch.rand(4, 3, 16, 16)
    attack(trainer, images, batch["labels"][:4], torch.arange(4))
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert any(parameter.requires_grad for parameter in trainer.model.parameters())

    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()

    # The same loss written out with the same adversarial images must give the same gradients.
    adversarial = attack(trainer, *attack_inputs(trainer, batch))
    classifier = trainer.step.student(trainer.model)
    log_p = classifier(adversarial).log_softmax(1)
    clean = classifier(attack_inputs(trainer, batch)[0]).log_softmax(1)
    teacher = trainer.step.guide(adversarial).log_softmax(1)
    expected = -log_p[range(8), batch["labels"]].mean()
    expected = expected + (teacher.exp() * (teacher - log_p)).sum(1).mean()
    expected = expected + (clean.exp() * (clean - log_p)).sum(1).mean()
    torch.testing.assert_close(loss, expected)
    expected.backward()
    for name, gradient in ours.items():
        if "k_proj.bias" not in name:
            torch.testing.assert_close(
                gradient, dict(trainer.model.named_parameters())[name].grad, rtol=1e-4, atol=1e-5
            )


def attack(trainer, images, labels, seeds):
    step = trainer.step
    student, teacher = step.student(trainer.model), Views(step.guide, images)
    return step.perturb(trainer.model, student, images, labels, seeds, teacher)[0]


def attack_inputs(trainer, batch):
    from hf_pmgaft.attacks import sample_seeds

    classifier = trainer.step.student(trainer.model)
    images = (batch["pixel_values"] * classifier.std + classifier.mean).clamp(0, 1)
    return images, batch["labels"], sample_seeds(trainer.args.seed, 0, batch["sample_id"])


def test_class_prompts_are_encoded_once_per_run(tmp_path):
    model = make_model()
    lengths = []
    model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    trainer = make_trainer(tmp_path, model=model)
    trainer.train()
    assert sum(length > 2 for length in lengths) == 1
    assert len(lengths) > 3  # the two-token prompts that CLIPModel.forward asks for


def test_the_teacher_s_own_accuracy_on_adversarial_images_is_logged(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.train()
    line = trainer.state.log_history[0]
    wanted = {"adversarial_ce", "teacher_kl", "clean_kl", "adversarial_accuracy", "clean_accuracy"}
    assert wanted | {"teacher_adversarial_accuracy"} <= set(line)
    assert "teacher_clean_accuracy" not in line  # never computed, so never logged


@pytest.mark.parametrize("kl_reduction", ["mean", "sum"])
def test_accumulation_and_one_large_batch_are_the_same_run(tmp_path, kl_reduction):
    runs = {}
    for batch, steps in ((8, 1), (4, 2), (2, 4)):
        trainer = make_trainer(
            tmp_path / str(batch),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            objective_kwargs={"kl_reduction": kl_reduction},
        )
        trainer.train()
        runs[batch] = trainer.state.log_history[:3]
    for one, *others in zip(runs[8], runs[4], runs[2], strict=True):
        for other in others:
            for key in ("loss", "adversarial_ce", "teacher_kl", "clean_kl", "grad_norm"):
                tolerance = 1e-4 if key == "grad_norm" else 1e-5
                assert one[key] == pytest.approx(other[key], rel=tolerance, abs=1e-6), key  # the first KL is 0
            assert one["adversarial_accuracy"] == pytest.approx(other["adversarial_accuracy"])


def test_a_sum_over_the_last_batches_of_an_epoch_is_not_multiplied_by_those_that_are_missing(tmp_path):
    runs = {}
    for batch, steps in ((8, 1), (4, 2)):
        trainer = make_trainer(
            tmp_path / str(batch),
            images=make_images(12),  # two batches of 4, and then one
            optim="sgd",
            learning_rate=0.01,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            objective_kwargs={"kl_reduction": "sum"},
        )
        trainer.train()
        runs[batch] = [line["clean_kl"] for line in trainer.state.log_history if "clean_kl" in line]

    assert runs[8] == pytest.approx(runs[4], rel=1e-4)


def test_activation_checkpointing_changes_nothing(tmp_path):
    plain = make_trainer(tmp_path / "a", max_steps=2)
    plain.train()
    checkpointed = make_trainer(tmp_path / "b", max_steps=2, gradient_checkpointing=True)
    checkpointed.train()
    assert losses(checkpointed) == pytest.approx(losses(plain), rel=1e-6)


def test_bf16_reaches_the_training_passes_and_not_the_evaluation(tmp_path):
    images = make_images(16, seed=1)
    trainer = make_trainer(tmp_path, bf16=True, max_steps=1, eval_dataset={"own": images})
    dtypes = []
    trainer.model.visual_projection.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    trainer.train()
    assert set(dtypes) == {torch.bfloat16}
    dtypes.clear()
    wrapped = trainer.model.forward
    metrics = trainer.evaluate()
    assert set(dtypes) == {torch.float32}
    assert trainer.model.forward is wrapped, "training would go on without autocast"
    plain = CLIPModel.from_pretrained(save(trainer, tmp_path / "saved")).float()
    report = evaluate_robustness(
        plain, make_processor(), trainer.eval_dataset, [trainer.args.eval_attack_spec()], progress=False, seed=42
    )
    assert report.mean_robust_accuracy == metrics["eval_mean_robust_accuracy"]
    dtypes.clear()
    trainer.predict(images)
    assert set(dtypes) == {torch.float32}


@pytest.mark.parametrize(("attack_precision", "expected"), [("follow", torch.bfloat16), ("fp32", torch.float32)])
def test_attack_follows_mixed_precision_unless_told_otherwise(tmp_path, attack_precision, expected):
    trainer = make_trainer(tmp_path, bf16=True, attack_precision=attack_precision)
    dtypes = []
    trainer.model.visual_projection.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    plain = trainer.model.forward
    trainer.accelerator.prepare_model(trainer.model)
    assert trainer.model.forward is not plain, "Accelerate did not wrap the forward in autocast"
    attack(trainer, torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), torch.arange(2))
    assert set(dtypes) == {expected}


@pytest.mark.parametrize("options", [{}, {"attack_kwargs": {"tau": 0}}, {"attack": "shared"}], ids=str)
def test_a_bf16_attack_leaves_training_in_float32_and_tells_the_share_of_equal_signs(tmp_path, options):
    trainer = make_trainer(tmp_path, attack_precision="bf16", max_steps=4, logging_steps=2, **options)
    dtypes = {True: [], False: []}
    trainer.model.visual_projection.register_forward_hook(
        lambda module, args, out: dtypes[module.training].append(out.dtype)
    )
    trainer.train()
    assert set(dtypes[True]) == {torch.float32} and len(dtypes[True]) == 2 * 4
    # The attack's own passes, and one in float32 for each of two log lines.
    assert set(dtypes[False]) == {torch.bfloat16, torch.float32} and dtypes[False].count(torch.float32) == 2
    shares = [line["attack_sign_agreement"] for line in trainer.state.log_history if "loss" in line]
    assert len(shares) == 2 and all(0.5 < share < 1 for share in shares)


def test_what_a_bf16_attack_asks_of_the_teacher_is_in_float32(tmp_path):
    trainer = make_trainer(tmp_path, objective="fare", attack_precision="bf16", max_steps=1)
    dtypes, encode = [], trainer.teacher.encode
    trainer.teacher.encode = lambda *args, **kwargs: dtypes.append((out := encode(*args, **kwargs)).dtype) or out
    trainer.train()
    assert dtypes == [torch.float32]


def test_an_early_stop_without_logits_to_see_it_in_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tau in attack_kwargs with objective FARE"):
        make_trainer(tmp_path, objective="fare", attack_kwargs={"tau": 0})
    with pytest.raises(ValueError, match="tau=-1"):
        make_trainer(tmp_path, attack_kwargs={"tau": -1})


def test_attack_sees_the_model_in_eval_mode_and_frozen(tmp_path):
    trainer = make_trainer(tmp_path)
    seen = []
    trainer.model.visual_projection.register_forward_hook(
        lambda module, args, out: seen.append((module.training, module.weight.requires_grad))
    )
    trainer.model.train()
    attack(trainer, torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), torch.arange(2))
    assert set(seen) == {(False, False)}
    assert trainer.model.visual_projection.training and trainer.model.visual_projection.weight.requires_grad


def test_noise_follows_the_step_and_the_sample(tmp_path, monkeypatch):
    seen = []
    perturb = AdversarialStep.perturb

    def note(self, inner, student, images, labels, seeds, *rest):
        seen.append(seeds.tolist())
        return perturb(self, inner, student, images, labels, seeds, *rest)

    monkeypatch.setattr(AdversarialStep, "perturb", note)
    for folder in ("a", "b"):
        make_trainer(tmp_path / folder, make_images(8), max_steps=2).train()
    first, second = seen[:2]
    assert len(set(first) | set(second)) == 16, "a sample's noise is the same in two steps, or that of another sample"
    assert seen[:2] == seen[2:]


def save(trainer, folder) -> str:
    trainer.save_model(str(folder))
    return str(folder)


def test_saved_model_is_a_plain_clip_with_the_logits_of_the_evaluation(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=make_images(8, seed=1))
    trainer.train()
    folder = save(trainer, tmp_path / "saved")
    model, info = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    processor = CLIPProcessor.from_pretrained(folder)

    pixels = torch.stack([trainer.eval_dataset["set"][i]["images"] for i in range(8)])
    logits = []
    for tower, source in ((trainer.model, trainer.processing_class), (model, processor)):
        embeds = encode_class_names(tower, source, CLASS_NAMES, "a photo of the {}")
        logits.append(ZeroShotClassifier.from_model(tower.eval(), source, embeds)(pixels))
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
    assert not list((tmp_path / "saved").glob("*.bin"))


def test_lora_trains_the_adapter_alone_with_the_base_model_as_its_teacher(tmp_path):
    trainer = make_trainer(tmp_path, peft_config=LoraConfig(**LORA), max_steps=3)
    base = state(trainer.model.get_base_model())
    images = torch.rand(2, 3, 16, 16)
    guide = trainer.step.guide(images)
    assert trainer.teacher.is_student
    trainer.train()

    for name, value in trainer.model.get_base_model().state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, base[name]), name
        elif "lora_B" in name:
            assert value.abs().sum() > 0, f"{name} did not change"
            assert "vision_model" in name
    torch.testing.assert_close(trainer.step.guide(images), guide)
    student = trainer.step.student(trainer.model)(images)
    assert (student - guide).abs().max() > 1e-3

    trainer.save_merged(str(tmp_path / "merged"))
    merged, info = CLIPModel.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    embeds = trainer.class_embeds
    folded = ZeroShotClassifier.from_model(merged, trainer.processing_class, embeds)(images)
    torch.testing.assert_close(folded, student, rtol=1e-5, atol=1e-4)
    assert trainer.model.peft_config  # the adapter is still there


def test_last_blocks_alone_can_be_trained(tmp_path):
    trainer = make_trainer(tmp_path, tuning="last_blocks")
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert not any("layers.0." in name or "embeddings" in name or "pre_layrnorm" in name for name in trained)
    assert any("layers.1." in name for name in trained)
    assert {"visual_projection.weight", "vision_model.post_layernorm.weight"} <= trained


def test_a_given_teacher_guides_with_its_own_texts(tmp_path):
    other = make_model(seed=5)
    trainer = make_trainer(tmp_path, teacher=other)
    images = torch.rand(2, 3, 16, 16)
    embeds = encode_class_names(other, trainer.processing_class, CLASS_NAMES, "a photo of the {}")
    expected = ZeroShotClassifier.from_model(other, trainer.processing_class, embeds)(images)
    torch.testing.assert_close(trainer.step.guide(images), expected)


def test_evaluate_covers_several_sets_each_with_its_own_classes(tmp_path):
    processor = make_processor()
    two = make_images(8, seed=2).filter(lambda row: row["label"] < 2)
    sets = {
        "own": make_images(12, seed=1),
        "discs": ZeroShotDataset(two, processor, CLASS_NAMES[:2], "an image of a {}", name="discs"),
    }
    trainer = make_trainer(tmp_path, eval_dataset=sets, compute_metrics=lambda p: {"n": len(p.label_ids)})
    metrics = trainer.evaluate()
    assert metrics["eval_own_n"] == 12 and metrics["eval_discs_n"] == 4
    mean = (metrics["eval_own_robust_accuracy"] + metrics["eval_discs_robust_accuracy"]) / 2
    assert metrics["eval_mean_robust_accuracy"] == pytest.approx(mean)
    assert [result.num_classes for result in trainer.last_report.sets] == [4, 2]
    assert all(r.robust_accuracy <= r.clean_accuracy for r in trainer.last_report.sets)


def test_evaluation_reads_by_the_workers_of_training_and_gives_the_same(tmp_path, monkeypatch):
    reports, workers, init = [], [], Reader.__init__
    monkeypatch.setattr(
        Reader, "__init__", lambda reader, data, count=0: workers.append(count) or init(reader, data, count)
    )
    for count in (0, 1):
        trainer = make_trainer(
            tmp_path,
            eval_dataset=make_images(12, seed=1),
            compute_metrics=lambda p: {"logits": float(np.abs(p.predictions).sum()), "labels": str(p.label_ids)},
            dataloader_num_workers=count,
        )
        metrics = trainer.evaluate()
        reports.append((trainer.last_report.sets, metrics["eval_set_logits"], metrics["eval_set_labels"]))
    assert reports[0] == reports[1] and workers == [0, 0, 1, 1]


def test_best_model_is_chosen_by_mean_robust_accuracy(tmp_path):
    trainer = make_trainer(
        tmp_path,
        eval_dataset=make_images(8, seed=1),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_mean_robust_accuracy",
        save_total_limit=1,
    )
    trainer.train()
    scores = [
        line["eval_mean_robust_accuracy"] for line in trainer.state.log_history if "eval_mean_robust_accuracy" in line
    ]
    assert len(scores) == 3
    assert trainer.state.best_metric == max(scores)


def test_predict_returns_clean_logits_and_labels(tmp_path):
    trainer = make_trainer(tmp_path)
    images = make_images(10, seed=3)
    output = trainer.predict(images)
    assert output.predictions.shape == (10, 4)
    assert output.label_ids.tolist() == images["label"]
    inputs = trainer.processing_class(
        text=[f"a photo of the {name}" for name in CLASS_NAMES],
        images=list(images["image"]),
        return_tensors="pt",
        padding=True,
    )
    expected = trainer.model.eval()(**inputs).logits_per_image
    np.testing.assert_allclose(output.predictions, expected.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_processor_made_rows_train_as_images_do(tmp_path):
    images, processor = make_images(), make_processor()
    made = images.map(
        lambda row: {
            "pixel_values": processor(images=row["image"], return_tensors="np")["pixel_values"][0],
            "labels": row["label"],
        },
        remove_columns=images.column_names,
    ).with_format("torch")
    by_image = make_trainer(tmp_path / "a", images)
    by_image.train()
    by_pixels = PMGAFTTrainer(
        model=make_model(),
        args=copy.deepcopy(by_image.args),
        train_dataset=made,
        processing_class=processor,
        class_names=CLASS_NAMES,
        prompt_templates="a photo of the {}",
    )
    by_pixels.train()
    assert losses(by_pixels) == pytest.approx(losses(by_image), rel=1e-6)


def test_the_user_s_own_collator_optimizer_schedule_and_callbacks_are_used(tmp_path):
    model, batches, steps = make_model(), [], []
    sgd = torch.optim.SGD(model.vision_model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(sgd, step_size=1, gamma=0.5)

    def collate(rows):
        batches.append([row["sample_id"] for row in rows])
        return torch.utils.data.default_collate(rows)

    class Count(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    options = {"data_collator": collate, "optimizers": (sgd, schedule), "callbacks": [Count()]}
    projection = model.visual_projection.weight.detach().clone()
    trainer = make_trainer(tmp_path, model=model, **options)
    trainer.train()
    assert steps == [1, 2, 3] and [len(set(batch)) for batch in batches[:3]] == [8, 8, 8]
    assert [line["learning_rate"] for line in trainer.state.log_history if "loss" in line] == [0.1, 0.05, 0.025]
    assert torch.equal(model.visual_projection.weight, projection), "not among the given optimizer's parameters"


def test_streaming_sets_train(tmp_path):
    trainer = make_trainer(tmp_path, make_images().to_iterable_dataset(), max_steps=2)
    trainer.train()
    assert len(losses(trainer)) == 2


def test_augmentation_follows_the_seed(tmp_path):
    runs = []
    for seed in (1, 1, 2):
        trainer = make_trainer(tmp_path, augmentation=1.0, max_steps=2, seed=seed, data_seed=0)
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0] == runs[1] != runs[2]


def test_a_model_s_name_is_enough(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    make_processor().save_pretrained(tmp_path / "model")
    trainer = PMGAFTTrainer(
        model=str(tmp_path / "model"),
        args=PMGAFTConfig(output_dir=str(tmp_path / "out"), max_steps=1, use_cpu=True, disable_tqdm=True),
        train_dataset=make_images(8),
    )
    trainer.train()
    assert trainer.state.global_step == 1


def test_lora_goes_with_activation_checkpointing(tmp_path):
    runs = []
    for checkpointing in (False, True):
        trainer = make_trainer(
            tmp_path / str(checkpointing), peft_config=LoraConfig(**LORA), gradient_checkpointing=checkpointing
        )
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0] == pytest.approx(runs[1], rel=1e-6)


def test_a_log_line_of_unequal_batches_is_the_mean_over_their_images(tmp_path):
    lines = {}
    for logging_steps in (1, 2):
        folder, images = tmp_path / str(logging_steps), make_images(11)
        trainer = make_trainer(folder, images, max_steps=2, logging_steps=logging_steps, lr_scheduler_type="constant")
        trainer.train()
        lines[logging_steps] = [line for line in trainer.state.log_history if "loss" in line]
    (first, second), (both,) = lines[1], lines[2]  # of 8 images, of 3, of all of them
    accuracies = ("adversarial_accuracy", "clean_accuracy", "teacher_adversarial_accuracy")
    for key in ("adversarial_ce", "teacher_kl", "clean_kl", *accuracies):
        assert both[key] == pytest.approx((8 * first[key] + 3 * second[key]) / 11, rel=1e-5), key
        assert abs(first[key] - second[key]) > 1e-3 or key in accuracies  # else any weights would do
    assert any(first[key] != second[key] for key in accuracies)


def test_logged_accuracies_are_those_of_the_images_they_name(tmp_path):
    other, processor = fit_model()
    trainer = make_trainer(tmp_path, model=other, teacher=make_model(seed=5), eps="40/255", max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))
    images, labels, seeds = attack_inputs(trainer, batch)
    adversarial = attack(trainer, images, labels, seeds)
    expected = {
        "clean_accuracy": trainer.step.student(trainer.model)(images),
        "adversarial_accuracy": trainer.step.student(trainer.model)(adversarial),
        "teacher_adversarial_accuracy": trainer.step.guide(adversarial),
    }
    expected = {name: (logits.argmax(1) == labels).float().mean().item() for name, logits in expected.items()}
    trainer.train()
    found = {name: trainer.state.log_history[0][name] for name in expected}
    assert found == pytest.approx(expected) and len(set(expected.values())) == 3


@pytest.mark.parametrize("peft_config", [None, LoraConfig(**LORA)], ids=["copy", "adapter off"])
def test_the_teacher_has_no_dropout_while_the_student_trains(tmp_path, peft_config):
    model = make_model()
    for layer in model.vision_model.encoder.layers:
        layer.self_attn.dropout = 0.8
    trainer, images = make_trainer(tmp_path, model=model, peft_config=peft_config), torch.rand(4, 3, 16, 16)
    expected = trainer.step.guide(images)
    trainer.model.train()
    with torch.no_grad():
        student = trainer.step.student(trainer.model)(images)
    assert torch.equal(trainer.step.guide(images), expected)
    assert (student - expected).abs().max() > 1e-3  # whose dropout is at work
    assert trainer.model.training


def test_own_metrics_are_of_the_images_and_labels_of_the_set(tmp_path):
    def accuracy(prediction):
        return {"accuracy": (prediction.predictions.argmax(1) == prediction.label_ids).mean()}

    trained, _ = fit_model()
    trainer = make_trainer(tmp_path, model=trained, eval_dataset=make_images(21, seed=1), compute_metrics=accuracy)
    metrics = trainer.evaluate()
    assert metrics["eval_set_accuracy"] == pytest.approx(metrics["eval_set_clean_accuracy"])
    assert metrics["eval_set_accuracy"] > 0.9  # which images or labels in another order would not reach


def test_evaluation_follows_the_configuration(tmp_path):
    options = {"eval_max_samples": 5, "seed": 7, "eval_eps": "20/255", "eval_num_steps": 2}
    trainer = make_trainer(tmp_path, eval_dataset=make_images(21, seed=1), **options)
    report = trainer.evaluate_robustness()
    attack = {"attack": "pgd", "eps": "20/255", "num_steps": 2, "loss": "margin"}
    expected = evaluate_robustness(
        make_model(), make_processor(), trainer.eval_dataset, [attack], max_samples=5, seed=7, progress=False
    )
    assert report.protocol == expected.protocol and report.sets == expected.sets
    assert report.sets[0].num_samples == 5


# ---- Clipping and warm-up ----

SGD = {"optim": "sgd", "weight_decay": 0.0, "lr_scheduler_type": "constant", "max_steps": 1}


def test_gradients_are_clipped_to_a_norm_and_by_0_not_at_all(tmp_path):
    moved, norms = {}, {}
    for norm in (0, 0.01):
        trainer = make_trainer(tmp_path / str(norm), **SGD, max_grad_norm=norm)
        before = state(trainer.model)
        trainer.train()
        changes = [(value - before[name]).flatten() for name, value in state(trainer.model).items()]
        moved[norm] = torch.cat(changes).norm().item()
        norms[norm] = trainer.state.log_history[0]["grad_norm"]

    rate = trainer.args.learning_rate
    assert norms[0] == pytest.approx(norms[0.01], rel=1e-5) and norms[0] > 0.02  # logged before clipping
    assert moved[0] == pytest.approx(rate * norms[0], rel=1e-2)
    assert moved[0.01] == pytest.approx(rate * 0.01, rel=1e-2)


def test_sgd_that_is_mostly_clipped_is_told(tmp_path, caplog):
    make_trainer(tmp_path / "clipped", **SGD, max_grad_norm=0.01).train()
    assert "max_grad_norm=0.01 in 1 of 1 logged steps" in caplog.text and "Pass max_grad_norm=0" in caplog.text
    caplog.clear()
    make_trainer(tmp_path / "free", **SGD, max_grad_norm=0).train()
    make_trainer(tmp_path / "adam", max_steps=1, max_grad_norm=0.01).train()
    assert "max_grad_norm" not in caplog.text


def test_a_warm_up_that_outlasts_the_run_is_told(tmp_path, caplog):
    make_trainer(tmp_path / "long", max_steps=1, warmup_steps=1000).train()
    assert "has 1 steps, but warmup_steps=1000" in caplog.text
    caplog.clear()
    make_trainer(tmp_path / "share", max_steps=2, warmup_steps=0.1).train()
    assert "warmup_steps" not in caplog.text


def test_a_total_batch_is_one_step_however_it_is_split(tmp_path):
    runs = {}
    for batch in (8, 2):
        options = {"total_train_batch_size": 8, "per_device_train_batch_size": batch, "max_steps": 2}
        trainer = make_trainer(tmp_path / str(batch), **options)
        trainer.train()
        runs[batch] = losses(trainer)
        assert trainer.state.global_step == 2
    assert runs[8] == pytest.approx(runs[2], rel=1e-5)
