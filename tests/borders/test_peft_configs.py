"""What a user passes as `peft_config`."""

import pytest
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    OFTConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    VeraConfig,
    get_peft_model,
)
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_images, make_model, make_processor
from support.trainers import make_trainer

from hf_pmgaft import ZeroShotDataset, evaluate_robustness, load_model
from hf_pmgaft.tuning import text_is_live

QUERIES = {"target_modules": ["q_proj"]}
VISION, BOTH = ("vision_model",), ("text_model", "vision_model")
NO_TASK = "a task of language models"

CASES = {
    "LoRA": (lambda: LoraConfig(**QUERIES), VISION),
    "LoRA for features": (lambda: LoraConfig(**QUERIES, task_type="FEATURE_EXTRACTION"), VISION),
    "LoRA for features, by its enumeration": (
        lambda: LoraConfig(**QUERIES, task_type=TaskType.FEATURE_EXTRACTION),
        VISION,
    ),
    "LoRA in inference mode": (lambda: LoraConfig(**QUERIES, inference_mode=True), Refused("adapter is frozen")),
    "LoRA with biases": (lambda: LoraConfig(**QUERIES, bias="all"), Refused('Use bias="none"')),
    "DoRA": (lambda: LoraConfig(**QUERIES, use_dora=True), VISION),
    "rank 0": (lambda: LoraConfig(**QUERIES, r=0), Refused("positive integer")),
    "modules of both towers by a pattern": (lambda: LoraConfig(target_modules=r".*\.q_proj"), BOTH),
    "all linear layers": (
        lambda: LoraConfig(target_modules="all-linear"),
        ("vision_model", "visual_projection"),
    ),
    "one block by its number": (lambda: LoraConfig(**QUERIES, layers_to_transform=1), VISION),
    "no modules": (lambda: LoraConfig(target_modules=[]), Refused("match nothing")),
    "modules that are not there": (lambda: LoraConfig(target_modules=["query"]), Refused("match nothing")),
    "a pattern that matches nothing": (lambda: LoraConfig(target_modules="vision.*query"), Refused("match nothing")),
    "blocks that are not there": (lambda: LoraConfig(**QUERIES, layers_to_transform=[7]), Refused("match nothing")),
    "IA3": (lambda: IA3Config(target_modules=["k_proj", "fc2"], feedforward_modules=["fc2"]), VISION),
    "OFT": (lambda: OFTConfig(**QUERIES, oft_block_size=8), VISION),
    "VeRA": (lambda: VeraConfig(**QUERIES, r=2), VISION),
    "AdaLoRA": (lambda: AdaLoraConfig(**QUERIES, total_step=10), VISION),
    "prompt tuning": (lambda: PromptTuningConfig(num_virtual_tokens=4), Refused("PROMPT_TUNING")),
    "prefix tuning": (lambda: PrefixTuningConfig(num_virtual_tokens=4), Refused("PREFIX_TUNING")),
    "a dict": (lambda: {"r": 4, **QUERIES}, Refused("tuning_kwargs", TypeError)),
    **{
        f"LoRA for {task.value}": (lambda task=task: LoraConfig(**QUERIES, task_type=task), Refused(NO_TASK))
        for task in TaskType
        if task != TaskType.FEATURE_EXTRACTION
    },
}


@outcomes(CASES)
def test_towers_that_an_adapter_trains(given, outcome, tmp_path):
    def towers():
        trainer = make_trainer(tmp_path, peft_config=given(), max_steps=1)
        trainer.train()
        plain = trainer.model.get_base_model()
        return tuple(sorted({name.split(".")[0] for name, value in plain.named_parameters() if value.requires_grad}))

    check(towers, outcome)


def test_class_texts_are_live_where_an_adapter_trains_the_text_tower(tmp_path):
    both = make_trainer(tmp_path, peft_config=LoraConfig(target_modules=r".*\.q_proj"))
    assert text_is_live(both.model) and both.step.live_prompts

    vision = make_trainer(tmp_path, peft_config=LoraConfig(**QUERIES))
    assert not vision.step.live_prompts


@pytest.mark.parametrize("task", ["FEATURE_EXTRACTION", "SEQ_CLS"])
def test_an_adapter_with_a_task_type_is_opened_for_what_it_adapts(tmp_path, task):
    adapted = get_peft_model(make_model(), LoraConfig(**QUERIES, task_type=task))
    adapted.save_pretrained(tmp_path)
    food = ZeroShotDataset(make_images(4), make_processor(), CLASS_NAMES, "a {}", name="food")

    model = load_model(str(tmp_path), make_model())

    report = evaluate_robustness(model, make_processor(), [food], ["fgsm,eps=1/255"], progress=False)
    plain = evaluate_robustness(make_model(), make_processor(), [food], ["fgsm,eps=1/255"], progress=False)
    assert report.sets[0].verdicts == plain.sets[0].verdicts  # the adapter has not been trained


def test_a_model_of_a_task_is_refused_as_it_is(tmp_path):
    adapted = get_peft_model(make_model(), LoraConfig(**QUERIES, task_type="FEATURE_EXTRACTION"))
    food = ZeroShotDataset(make_images(4), make_processor(), CLASS_NAMES, "a {}", name="food")

    with pytest.raises(ValueError, match="PeftModelForFeatureExtraction, which peft makes for task_type="):
        make_trainer(tmp_path, model=adapted)
    with pytest.raises(ValueError, match="takes texts alone"):
        evaluate_robustness(adapted, make_processor(), [food], ["fgsm,eps=1/255"], progress=False)
