from .reports import save_comparison_page as save_comparison_page
from .reports import save_report_page as save_report_page
