"""Fitting, judging, and predicting."""
