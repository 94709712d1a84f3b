"""Looking at a data set before training on it: what is in it, what is wrong, what a recipe makes of it."""
