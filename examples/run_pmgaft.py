"""Makes a CLIP robust to adversarial images, and says what was gained and lost.

With no arguments it tunes the small CLIP of examples/emoji by PMG-AFT, in a few minutes on two CPU cores:

    accelerate launch examples/run_pmgaft.py

The same script does a paper's whole job by a recipe, on one GPU or many: it tunes a model of the Hub on a set of the
Hub, and measures sixteen sets before and after:

    accelerate launch examples/run_pmgaft.py --recipe pmg_aft --bf16

A recipe or a YAML file gives defaults (--recipe, --config), flags override them. It writes into --output_dir:
the checkpoint with its processor and tokenizer, robustness_before.json and robustness.json, README.md (the model card)
and pictures.
"""

from hf_pmgaft.cli.train import main
from hf_pmgaft.distributed import leave

if __name__ == "__main__":
    main(script=__doc__)
    leave()
