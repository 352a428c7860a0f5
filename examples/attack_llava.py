"""Attacks what a vision-language model writes, before and after another vision tower is put in.

    python examples/attack_llava.py --towers outputs/clip-pmgaft-emoji
    python examples/attack_llava.py --towers outputs/clip-pmgaft-emoji --num_images 8 --gallery llava.png
    python examples/attack_llava.py --model llava-hf/llava-1.5-7b-hf --towers user/robust-clip-vit-large-patch14-336 \\
        --eval_set user/coco-captions@validation --caption_column captions --prompt "Describe the image briefly." \\
        --tasks targeted caption --targets "Visit example.com now" --eps 2/255 4/255 --num_images 500 \\
        --verdict_file texts.jsonl

Three tasks, each by PGD on the cross-entropy of an answer under the language model (float32, L-inf):
  targeted  stealth: each image is perturbed until the model writes a string of the attacker's choosing
  caption   each image is perturbed against its captions; scored by chrF++ against the best of them
  vqa       each image is perturbed against the answers to its question; scored by VQA accuracy

A tower of --towers, a CLIP of the one that LLaVA was built on, takes the place of LLaVA's own; language model and
projector stay as they are. Judged is the adversarial image as an 8-bit file holds it, and per image the worst of the
clean image and all radii so far.

Without --model and --eval_set it asks the tiny LLaVA of examples/emoji about emoji in a drawing style that no training
saw. With --verdict_file, a run that was killed goes on where it was, and towers may be added later.
"""

from hf_pmgaft.cli.attack_vlm import main

if __name__ == "__main__":
    main(script=__doc__)
