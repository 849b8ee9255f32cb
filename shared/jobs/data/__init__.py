"""What the parameters of several families have in common: places, steps, expressions, URLs."""
