"""Takes published robust checkpoints into transformers, and models of this package to open_clip.

    python examples/convert.py --from fare_eps_2.pt --base openai/clip-vit-large-patch14 --output_dir fare2
    python examples/convert.py --from outputs/clip-pmgaft-emoji --to open_clip --output_dir clip-pmgaft-open-clip

The first writes a folder that `--model` of evaluate_robustness.py, `--model_name_or_path` of run_pmgaft.py and
`CLIPModel.from_pretrained` take. It reads whole open_clip checkpoints and vision towers alone (FARE, TeCoA and what
grew out of its code), never a pickle that could run code. The second writes one that
`open_clip.create_model_and_transforms("local-dir:FOLDER")` takes.
"""

from hf_pmgaft.cli.convert import main

if __name__ == "__main__":
    main(script=__doc__)
