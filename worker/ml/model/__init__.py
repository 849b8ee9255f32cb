"""Models: estimators, the pipeline of recipe and estimator, their files, and what may be in those."""
