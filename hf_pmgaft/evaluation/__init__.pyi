from .evaluate import evaluate_robustness as evaluate_robustness
from .evaluate import sample_ids as sample_ids
from .heads import Head as Head
from .heads import LinearProbe as LinearProbe
from .heads import NearestClassMean as NearestClassMean
from .report import RobustnessReport as RobustnessReport
from .report import SetResult as SetResult
from .report import compare_reports as compare_reports
