"""Processors beside a model: of another size, another class, another vocabulary, or without statistics."""

import pytest
import torch
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, WORDS, make_images, make_model, make_processor
from transformers import CLIPProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, ZeroShotDataset, evaluate_robustness
from hf_pmgaft.data.rows import scaled_resize
from hf_pmgaft.models import at_resolution
from hf_pmgaft.models.tokens import check_tokens
from hf_pmgaft.suites.loading import resize_of

RIGHT = "evaluated and trained"
SIZE = {"height": 16, "width": 16}
OTHER_SIZE = Refused("but the model takes 16 x 16")
BLACK_FRAME = Refused("which would put a black frame around each image")
NO_STATISTICS = Refused("which holds no pixel statistics", TypeError)
NO_TOKENIZER = Refused("which has no tokenizer", TypeError)


def sized(edge, crop, **values):
    """A processor that resizes the shortest edge and crops."""
    processor = make_processor()
    images = processor.image_processor
    images.size, images.crop_size = {"shortest_edge": edge}, {"height": crop, "width": crop}
    for name, value in values.items():
        setattr(images, name, value)
    return processor


def squashed(height, width):
    processor = sized(16, 16, do_center_crop=False)
    processor.image_processor.size = {"height": height, "width": width}
    return processor


def beside(images):
    """Another image processor with the model's tokenizer."""
    return CLIPProcessor(image_processor=images, tokenizer=make_processor().tokenizer)


def other_end():
    """A tokenizer whose texts end otherwise, as SigLIP's do for CLIP."""
    processor = make_processor()
    tokenizer = processor.tokenizer
    tokenizer.backend_tokenizer.post_processor = None
    return processor


CASES = {
    "the model's own": (make_processor, RIGHT),
    "a resize beyond the crop": (lambda: sized(20, 16), RIGHT),
    "no crop of square images": (lambda: sized(16, 16, do_center_crop=False), RIGHT),
    "no resize": (lambda: sized(16, 16, do_resize=False), RIGHT),
    "images as they are": (lambda: sized(16, 16, do_resize=False, do_center_crop=False), RIGHT),
    "no crop, squashed": (lambda: squashed(16, 16), RIGHT),
    "no normalisation": (lambda: sized(16, 16, do_normalize=False), RIGHT),
    "of a ViT, with the tokenizer": (lambda: beside(ViTImageProcessorPil(size=SIZE)), RIGHT),
    "of a SigLIP, with the tokenizer": (lambda: beside(SiglipImageProcessorPil(size=SIZE)), RIGHT),
    "a larger one": (lambda: sized(24, 24), OTHER_SIZE),
    "a smaller one": (lambda: sized(8, 8), OTHER_SIZE),
    "a larger crop": (lambda: sized(24, 20), OTHER_SIZE),
    "a larger square": (lambda: squashed(24, 24), OTHER_SIZE),
    "no square": (lambda: squashed(16, 20), OTHER_SIZE),
    "of a ViT of 224": (lambda: beside(ViTImageProcessorPil()), OTHER_SIZE),
    "a crop beyond the resize": (lambda: sized(12, 16), BLACK_FRAME),
    "statistics of None": (lambda: sized(16, 16, image_mean=None), Refused("image_mean=None is not one number")),
    "statistics of 8 bits": (lambda: sized(16, 16, image_std=[58.4, 57.1, 57.4]), Refused("not of images in [0,1]")),
    "a tokenizer alone": (lambda: make_processor().tokenizer, NO_STATISTICS),
    "an image processor alone": (lambda: make_processor().image_processor, NO_TOKENIZER),
    "an image processor of a ViT": (lambda: ViTImageProcessorPil(size=SIZE), NO_TOKENIZER),
    "a name": (lambda: "openai/clip-vit-base-patch32", NO_STATISTICS),
    "a function": (lambda: lambda image: image, NO_STATISTICS),
    "a larger vocabulary": (
        lambda: make_processor([*"abcdefghijklmnopqrstuvwxyz1234567890", *WORDS]),
        Refused("32 tok"),
    ),
    "texts that end otherwise": (other_end, Refused("does not end texts with the token at which a CLIPModel reads")),
}


def evaluate(processor):
    data = ZeroShotDataset(make_images(12), processor, CLASS_NAMES)
    evaluate_robustness(make_model(), processor, [data], ["fgsm,eps=1/255"], probes=False, progress=False)
    return RIGHT


def train(processor, folder):
    """Trains a step, and asks for logits, which go through the collator."""
    images = make_images(12)
    options = dict(
        max_steps=1, eval_num_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True
    )
    args = PMGAFTConfig(output_dir=str(folder), eps="1/255", **options)
    trainer = PMGAFTTrainer(make_model(), args, train_dataset=images, processing_class=processor)
    trainer.train()
    assert trainer.predict(images).predictions.shape == (12, 4)
    return RIGHT


@outcomes(CASES)
def test_processors_beside_a_model(given, outcome, tmp_path):
    check(lambda: evaluate(given()), outcome)
    check(lambda: train(given(), tmp_path), outcome)


def test_images_of_a_native_size_are_evaluated_by_any_processor():
    processor = sized(24, 24)
    data = ZeroShotDataset(make_images(12), processor, CLASS_NAMES, native_size=True)
    report = evaluate_robustness(make_model(), processor, [data], ["fgsm,eps=1/255"], probes=False, progress=False)
    assert data.shape == (3, 20, 20) and report.sets[0].num_samples == 12


def test_a_text_beyond_the_model_is_cut_where_the_tokenizer_knows_no_length():
    processor = make_processor()
    processor.tokenizer.model_max_length = int(1e30)
    names = [f"{name} {'red ' * 30}" for name in CLASS_NAMES]
    data = ZeroShotDataset(make_images(12), processor, names, "{}")
    model = make_model()
    report = evaluate_robustness(model, processor, [data], ["fgsm,eps=1/255"], probes=False, progress=False)
    data = ZeroShotDataset(make_images(12), make_processor(), names, "{}")
    same = evaluate_robustness(model, make_processor(), [data], ["fgsm,eps=1/255"], probes=False, progress=False)
    assert report.sets[0].verdicts == same.sets[0].verdicts


def test_the_largest_id_ends_texts_where_the_configuration_is_of_the_first_clip():
    model = make_model()
    model.config.text_config.eos_token_id = model.text_model.eos_token_id = 2
    with pytest.raises(ValueError, match="does not end texts with the token"):
        train_on(model, make_processor())


def test_a_text_may_hold_the_end_token_within_as_unknown_words_of_openai_s_clip_are():
    model = make_model()
    model.config.text_config.eos_token_id = 2
    ids = torch.tensor([[0, 31, 5, 31, 31], [0, 5, 31, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    check_tokens(model, ids, mask)
    with pytest.raises(ValueError, match="does not end texts"):
        check_tokens(model, ids, torch.ones_like(mask))


def train_on(model, processor):
    data = ZeroShotDataset(make_images(12), processor, CLASS_NAMES)
    evaluate_robustness(model, processor, [data], ["fgsm,eps=1/255"], probes=False, progress=False)


@pytest.mark.parametrize(("edge", "resize"), [(224, 256), (336, 384), (448, 512), (112, 128), (240, 274)])
def test_a_suite_frames_the_same_at_every_resolution(edge, resize):
    processor = sized(edge, edge)
    assert scaled_resize(256, processor) == resize_of({"resize": "256/224"}, processor) == resize
    assert scaled_resize(224, processor) == edge and resize_of({}, processor) is None
    assert resize_of({"resize": 300}, processor) == 300


def test_a_model_of_336_reads_known_sets_and_says_what_to_pass_for_others():
    _, processor = at_resolution(make_model(), make_processor(), 336)
    data = ZeroShotDataset(make_images(4), processor, CLASS_NAMES, resize=resize_of({"resize": "256/224"}, processor))
    assert data.resize == 384 and data.shape == torch.Size([3, 336, 336])
    with pytest.raises(ValueError, match="256, less than the processor's crop of 336.* such as 384, which frames"):
        ZeroShotDataset(make_images(4), processor, CLASS_NAMES, resize=256)
