"""The whole vision tower is trained."""

from support.tuned import trained

from hf_pmgaft.tuning import WholeVisionTower


def test_whole_vision_tower_is_trained_by_default_and_the_text_tower_never(model):
    names = trained(WholeVisionTower().prepare(model))
    assert names == {n for n, _ in model.named_parameters() if n.startswith(("vision_model.", "visual_projection."))}
