from .suite import FIELDS as FIELDS
from .suite import FOLDER as FOLDER
from .suite import draw_sample_ids as draw_sample_ids
from .suite import load_suite as load_suite
from .suite import read_suite as read_suite
