from .galleries import answer_gallery as answer_gallery
from .galleries import attention_gallery as attention_gallery
from .galleries import gallery as gallery
from .reports import clean_against_robust as clean_against_robust
from .reports import robustness_bars as robustness_bars
from .reports import robustness_curve as robustness_curve
from .reports import training_curves as training_curves
from .segmentation import segmentation_gallery as segmentation_gallery
