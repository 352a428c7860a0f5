"""`open_clip_config.json`: what it makes of equal weights, or why no CLIPModel can hold what it describes."""

import sys

from support.borders import Refused, check, outcomes
from support.published import described, open_clip_folder

from hf_pmgaft.tuning.saved import load_pair

PLAIN = ("quick_gelu", 16, "shortest")


def changed(section=None, tower=None, **values):
    """The configuration of the tiny model with other values."""
    config = described()
    part = config if section is None else config[section]
    part = part if tower is None else part[tower]
    for key, value in values.items():
        if value is None:
            part.pop(key, None)
        else:
            part[key] = value
    return config


def vision(**values):
    return changed("model_cfg", "vision_cfg", **values)


def text(**values):
    return changed("model_cfg", "text_cfg", **values)


def alone(name):
    return Refused(f"({name}); it is evaluated through open_clip, which is not installed", ImportError)


CASES = {
    "as it is": (described(), PLAIN),
    "without quick_gelu": (changed("model_cfg", quick_gelu=None), ("gelu", *PLAIN[1:])),
    "quick_gelu false": (changed("model_cfg", quick_gelu=False), ("gelu", *PLAIN[1:])),
    "both edges resized": (changed("preprocess_cfg", resize_mode="squash"), ("quick_gelu", 16, "squash")),
    "the size given": (changed("preprocess_cfg", size=[16, 16]), PLAIN),
    "another size": (changed("preprocess_cfg", size=32), Refused("to 32 pixels for a model of 16")),
    "padded images": (changed("preprocess_cfg", resize_mode="longest"), Refused("which no processor of CLIP does")),
    "no preprocess_cfg": (changed(preprocess_cfg=None), PLAIN),
    "keys that it need not have": (changed(hf_hub_id="owner/clip", version="3.3"), PLAIN),
    "no embed_dim": (changed("model_cfg", embed_dim=None), Refused("lacks embed_dim in its model_cfg")),
    "no vision_cfg": (changed("model_cfg", vision_cfg=None), Refused("lacks vision_cfg")),
    "no model_cfg": (changed(model_cfg=None), Refused("describes no model of open_clip")),
    "another width": (vision(width=64), Refused("does not fit its open_clip_config.json")),
    "a key that nobody knows": (vision(registers=4), alone("vision_cfg.registers")),
    "one that is off": (vision(qk_norm=False, no_ln_pre=False, output_tokens=False), PLAIN),
    "a timm tower": (vision(timm_model_name="convnext_base"), alone("vision_cfg.timm_model_name")),
    "a ResNet": (vision(layers=[3, 4, 6, 3]), alone("vision_cfg.layers")),
    "averaged patches": (vision(pool_type="avg"), alone("vision_cfg.pool_type")),
    "a BERT": (text(hf_model_name="bert-base"), alone("text_cfg.hf_model_name")),
    "texts pooled at their last token": (text(pool_type="last"), alone("text_cfg.pool_type")),
    "texts cleaned otherwise": (text(tokenizer_kwargs={"clean": "lower"}), alone("text_cfg.tokenizer_kwargs")),
    "SigLIP's bias": (changed("model_cfg", init_logit_bias=-10), alone("init_logit_bias")),
    "CoCa": (changed("model_cfg", multimodal_cfg={"layers": 1}), alone("multimodal_cfg")),
    "a text tower kept apart": (changed("model_cfg", custom_text=True), PLAIN),
}


@outcomes(CASES)
def test_what_a_configuration_opens_as(given, outcome, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    open_clip_folder(tmp_path, config=given)

    def opened():
        model, processor = load_pair(str(tmp_path))
        images = processor.image_processor
        mode = "shortest" if images.do_center_crop else "squash"
        return model.config.vision_config.hidden_act, images.crop_size["height"], mode

    check(opened, outcome)
