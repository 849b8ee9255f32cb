"""From columns to features: the recipe."""
