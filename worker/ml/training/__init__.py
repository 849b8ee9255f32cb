"""Training rows, fitting, evaluation and prediction."""
