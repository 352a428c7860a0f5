from .serve import build_page as build_page
from .serve import launch as launch
from .settings import Settings as Settings
