"""The model card: what a model is for, how well it predicts, and what it was made from."""
