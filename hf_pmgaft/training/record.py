"""What a run trains on and by which budget, in the words that its report, card and configuration share."""

from __future__ import annotations

from typing import Any

from ..config import PMGAFTConfig
from ..fingerprints import digest_of_list
from ..models.processors import pixel_statistics
from .texts import Texts

NUM_NAMES = 3  # class names that are written out


def training_record(args: PMGAFTConfig, texts: Texts, dataset: Any, num_text_tokens: int = 0) -> dict[str, Any]:
    """Gives class names, templates, captions, pixel statistics, noise, clipping and total batch, for JSON.

    Args:
        args (`PMGAFTConfig`): As it is once the number of processes is known.
        texts (`Texts`): What images are compared with; their processor normalises the images.
        dataset: What is trained on.
        num_text_tokens (`int`): Learned tokens before the class name, in place of a template.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig
        >>> texts = Texts(processor, class_names, ["a photo of the {}"])
        >>> record = training_record(PMGAFTConfig(output_dir="clip", use_cpu=True), texts, dataset)
        >>> record["class_names"]["first"], record["images_per_step"], record["max_grad_norm"]
        (['red disc', 'green disc', 'blue square'], 8, 1.0)
    """
    record: dict[str, Any] = {}
    names = texts.class_names
    if names:
        first = list(names[:NUM_NAMES])
        record["class_names"] = {"count": len(names), "digest": digest_of_list(names), "first": first}
        record["prompt_templates"] = list(texts.prompt_templates)
    if num_text_tokens:
        record["learned_context"] = num_text_tokens
    captions = getattr(dataset, "captions", None)
    if captions:
        record["captions"] = list(captions.paths)
    source = getattr(dataset, "source", None)
    if source:
        record["set"] = source

    if args.noise_sigma is not None:
        record["noise_sigma"] = args.noise_sigma
    mean, std = pixel_statistics(texts.processor)
    record |= {"image_mean": list(mean), "image_std": list(std), "max_grad_norm": args.max_grad_norm or None}
    record["images_per_step"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return record
