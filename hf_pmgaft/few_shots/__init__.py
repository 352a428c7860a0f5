"""Few shots: a grid of methods, shots, seeds and sets, whose rows are each computed once."""
