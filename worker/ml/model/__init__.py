"""Models: estimators, the pipeline of recipe and estimator, their files, and the types that a file may hold."""
