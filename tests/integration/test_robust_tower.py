"""A robust tower for a LLaVA, as its page says: trained from the CLIP that LLaVA was built on, put in, and asked."""

import pytest
import torch
from support.hub_server import own_hub
from support.hub_sets import put_sets
from support.llava import equal_weights
from support.recipes import make_processor, saved
from support.vlm_families import make_tokenizer
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_pmgaft import cli, load_model, swap_vision_tower, vision_tower
from hf_pmgaft.downstream.vlm import load_vlm

CLIP, LLAVA = "openai/clip-vit-large-patch14-336", "llava-hf/llava-1.5-7b-hf"
# The true shape of CLIP's ViT-L/14 at 336 pixels, but for 22 of its 24 blocks.
TOWER = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, patch_size=14, image_size=336)
BLOCKS = 2
SMALL = ["--max_steps", "2", "--total_train_batch_size", "2", "--num_steps", "2", "--step_size", "1eps"]
SMALL += ["--suite_sets", "dtd", "--limit", "1", "--eval_num_steps", "1"]
SMALL += ["--use_cpu", "--dataloader_num_workers", "0", "--report_to", "none"]


def make_pair() -> tuple[CLIPModel, CLIPProcessor]:
    torch.manual_seed(0)
    processor = make_processor()
    edges = {"height": 336, "width": 336}
    processor.image_processor = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=edges)
    text = dict(hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=1)
    text.update(vocab_size=len(processor.tokenizer), bos_token_id=0, eos_token_id=2, pad_token_id=1)
    config = CLIPConfig(text_config=text, vision_config={**TOWER, "num_hidden_layers": BLOCKS}, projection_dim=768)
    return CLIPModel(config).eval(), processor


def make_llava(clip: CLIPModel, processor: CLIPProcessor) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA on the CLIP's own tower, with LLaVA-1.5's choice of features and a small language model."""
    tokenizer = make_tokenizer(image_token="<image>")
    tokenizer.model_max_length = 1024
    text = dict(hidden_size=64, intermediate_size=128, num_attention_heads=2, num_hidden_layers=1)
    config = LlavaConfig(
        vision_config=clip.config.vision_config,
        text_config=LlamaConfig(**text, vocab_size=len(tokenizer), max_position_embeddings=1024),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    llava = LlavaForConditionalGeneration(config).eval()
    swap_vision_tower(llava, clip)
    template = "{% for part in messages[0]['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    template += "{% endfor %}{{ '\\n' }}"
    images = processor.image_processor
    return llava, LlavaProcessor(images, tokenizer, 14, "default", template, num_additional_image_tokens=1)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fare", "pmg_aft"])
def test_a_tower_of_true_shape_is_trained_and_put_into_a_llava(recipe, tmp_path, capsys):
    clip, processor = make_pair()
    llava, its_processor = make_llava(clip, processor)
    with pytest.MonkeyPatch.context() as patch, own_hub(patch, tmp_path) as hub:
        patch.chdir(tmp_path)
        hub.put(CLIP, saved(clip, processor))
        hub.put(LLAVA, saved(llava, its_processor))
        for repo in put_sets(hub).values():
            repo.granted.add("user")

        train = ["train", "--recipe", recipe, "--model_name_or_path", CLIP, "--output_dir", "robust", *SMALL]
        cli.main([*train, *(["--resize", "336"] if recipe == "fare" else [])])
        capsys.readouterr()
        attack = ["attack-vlm", "--model", LLAVA, "--towers", "robust", "--tasks", "vqa", "--num_images", "1"]
        cli.main([*attack, "--num_steps", "1", "--eps", "4/255", "--max_new_tokens", "2"])
        assert "robust" in capsys.readouterr().out
        robust, model = load_model("robust"), load_vlm(LLAVA)

    own = vision_tower(model.model)
    assert equal_weights(own, clip.vision_model) and not equal_weights(own, robust.vision_model)
    images = torch.full((1, 3, 336, 336), 0.5)
    before = model.features(images)
    swap_vision_tower(model.model, robust)
    assert before.shape == (1, 576, 1024) and not torch.allclose(model.features(images), before)
    assert len(model.write(images, ["describe it"], max_new_tokens=2)) == 1
