"""Adversarially robust CLIP, the Hugging Face way."""

__version__ = "0.1.0"

_PUBLIC = {
    "ATTACKS": "attacks",
    "LinearProbe": "heads",
    "NearestClassMean": "heads",
    "OBJECTIVES": "objectives",
    "Objective": "objectives",
    "PMGAFTConfig": "config",
    "PMGAFTTrainer": "trainer",
    "RetrievalDataset": "data",
    "RobustnessReport": "report",
    "SamplePictures": "callbacks",
    "TUNINGS": "tuning",
    "VisionLanguageModel": "vlm",
    "ZeroShotClassifier": "zero_shot",
    "ZeroShotDataset": "data",
    "at_resolution": "models.resolution",
    "attack_answers": "vlm",
    "compare_reports": "report",
    "encode_class_names": "zero_shot",
    "evaluate_robustness": "evaluation",
    "get_encoder": "models.backbones",
    "load_images": "data",
    "load_suite": "suites",
    "AttackSpec": "attacks.spec",
    "export_class_embeds": "zero_shot",
    "fold_into_clip": "tuning",
    "load_model": "tuning.saved",
    "load_open_clip": "downstream.open_clip",
    "save_open_clip": "downstream.open_clip",
    "swap_vision_tower": "towers",
    "to_open_clip": "downstream.open_clip",
    "vision_tower": "towers",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    # Imported when first used: torch and transformers take seconds.
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
