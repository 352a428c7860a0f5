"""`ReadoutSpec`: a readout with its options, as an evaluation is asked for it and reports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from torch import nn

from ..models.backbones import get_backbone, unwrap
from ..models.readouts import READOUTS, check_readout
from ..registry import check_choice
from .segmenter import Segmenter, check_scale, check_stride


@dataclass(frozen=True)
class ReadoutSpec:
    """How pixels are compared with names; see [`Segmenter`].

    Args:
        name (`str`): One of `READOUTS`.
        scale (`float`, *optional*): What cosines are multiplied by; that of the readout's authors if not given.
        window_stride (`int`, *optional*): Pixels from window to window; half a window if not given.

    Example:
        >>> ReadoutSpec.parse("sclip,window_stride=8").describe(model)
        {'readout': 'sclip', 'scale': 40.0, 'window': 16, 'window_stride': 8}
    """

    name: str
    scale: float | None = None
    window_stride: int | None = None

    @classmethod
    def parse(cls, text: str) -> ReadoutSpec:
        """A checked readout from a text such as `"sclip"` or `"sclip,scale=65"`.

        Raises:
            ValueError: says what is wrong with it.
        """
        name, *given = text.split(",")
        options: dict[str, Any] = {}
        for option in given:
            key, equals, value = option.partition("=")
            if not equals or key not in ("scale", "window_stride") or key in options:
                raise ValueError(
                    f"You passed the readout {text!r}, in which {option!r} is no option, or one for the second time. "
                    "Write as sclip,scale=65,window_stride=112."
                )
            options[key] = yaml.safe_load(value)

        check_choice("readout", name, READOUTS)
        if "scale" in options:
            check_scale(options["scale"])
        return cls(name, **options)

    def describe(self, model: nn.Module) -> dict[str, Any]:
        """The readout of a model with all that figures depend on, as reports record it.

        Raises:
            ValueError: if the model has no such readout, or the stride leaves pixels out.
        """
        check_readout(model, self.name)
        window = get_backbone(model).image_size(unwrap(model))
        scale = READOUTS[self.name].scale if self.scale is None else self.scale
        stride = max(window // 2, 1) if self.window_stride is None else check_stride(self.window_stride, window)
        return {"readout": self.name, "scale": float(scale), "window": window, "window_stride": stride}

    def segmenter(self, model: nn.Module, processor: Any, data: Any) -> Segmenter:
        """The segmenter of a model for the classes of a set; see [`Segmenter.from_model`]."""
        options = {"scale": self.scale, "window_stride": self.window_stride}
        return Segmenter.from_model(model, processor, data, self.name, **options)
