"""Recovery: the training loop, its batches, its seams."""
