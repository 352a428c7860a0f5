from .answers import save_answer_comparison_page as save_answer_comparison_page
from .answers import save_answer_page as save_answer_page
from .reports import comparison_page as comparison_page
from .reports import report_page as report_page
from .reports import save_comparison_page as save_comparison_page
from .reports import save_report_page as save_report_page
