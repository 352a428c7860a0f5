"""`python -m hf_pmgaft.cli` is `pmgaft`, wherever that is not on the path."""

from . import main

if __name__ == "__main__":
    main()
    from ..distributed import leave  # which brings in torch

    leave()
