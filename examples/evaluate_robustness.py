"""Measures the clean and robust zero-shot accuracy of any CLIP checkpoint on any labelled image sets, or its recall on
any image-caption sets.

    python examples/evaluate_robustness.py --model outputs/clip-pmgaft-emoji --eps 4/255 8/255
    python examples/evaluate_robustness.py --model outputs/clip-pmgaft-emoji --attacks autoattack --output_file aa.json
    accelerate launch examples/evaluate_robustness.py --model openai/clip-vit-base-patch32 --suite paper16 \\
        --limit 1000 --eps 1/255 --attacks autoattack,version=fast --verdict_file verdicts.jsonl
    python examples/evaluate_robustness.py --compare before.json after.json
    python examples/evaluate_robustness.py --caption_column label,tags --num_steps 20

An attack is a name and its options: pgd,num_steps=100,loss=ce,restarts=5 or fgsm, cw, apgd, apgd_t, fab, fab_t,
square, autoattack,version=standard, patch,size=16, corruption,kind=jpeg,severity=3. Radii and norm come from --eps and
--norm unless it names its own. The first attack at the first radius is the headline; others are reported beside it.

Without --eval_sets or --suite it uses the eight emoji groups of examples/emoji, in a drawing style that no training
saw. With --caption_column the images of a set and their captions are retrieved by each other (recall at 1, 5 and 10,
under fgsm, pgd or corruption); with --target images are pulled to a caption. With --defence each attack is three: one
that does not know the defence, one through it and one past its gradient; per image the worst of them counts. With
--verdict_file, a run that was killed goes on where it was. Several processes share the images.
"""

from hf_pmgaft.cli.evaluate import main
from hf_pmgaft.distributed import leave

if __name__ == "__main__":
    main(script=__doc__)
    leave()
