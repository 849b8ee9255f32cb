"""Parameters shared by several families: places, steps, expressions, URLs."""
