"""The ML family: features, training, prediction and search, with scikit-learn."""
