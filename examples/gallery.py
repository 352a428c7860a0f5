"""Shows where CLIP checkpoints look: the attention to the class text over images as they are, and under attack.

    python examples/gallery.py
    python examples/gallery.py --models examples/emoji/model outputs/clip-pmgaft-emoji
    python examples/gallery.py --models openai/clip-vit-base-patch32 outputs/clip-pmgaft --eps 1/255 \\
        --eval_set ethz/food101@validation --prompt_template "a photo of {}, a type of food" --num_images 6

A column is an image, drawn by the seed. Of each model the picture shows the image clean and attacked against that
model by PGD, what the model takes it for (green is right, red wrong), and below how well each patch fits the text of
the true class (text-guided attention, TGA-ZSR, arXiv 2410.21802). The number under two maps is their correlation over
the patches: it is low where the attack moves the attention, and near 1 where the model goes on looking at the same.

Without --models it shows the small CLIP of examples/emoji, without --eval_set emojis in a drawing style that no
training saw.
"""

from hf_pmgaft.cli.gallery import main

if __name__ == "__main__":
    main(script=__doc__)
