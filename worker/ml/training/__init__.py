"""Where the rows to learn from come from, fitting, judging, and predicting."""
