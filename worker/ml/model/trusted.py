"""The types that a model file may hold in addition to those that skops trusts, each with the reason.

skops trusts Python's plain values, NumPy arrays without objects, and scikit-learn's estimators. Any other type is
refused by name before anything in the file is constructed. Add a type to this list only after reading its
`__reduce__`, `__setstate__` and constructor: none of them may call a function that the file names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR

TRUSTED_TYPES = {
    # skops stores it as the header of an empty array and reads that with `allow_pickle=False`.
    "numpy.dtype": "the dtype that an imputer was fitted on",
    # Arrays of nodes with a fixed dtype, checked in Cython (`_check_node_ndarray`); links are checked below.
    "sklearn.tree._tree.Tree": "the trees of random forests",
    # A structured array of nodes and two bit sets; a plain Python class without hooks.
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": "the trees of gradient boosting",
}


def shapes_are_sound(estimator: Any) -> bool:
    """Return whether the sizes of the arrays of a fitted SVM or k-neighbours model agree.

    Compiled code (libsvm, the pairwise distances) reads each array up to the size of another, without a check.
    """
    held = vars(estimator)
    if isinstance(estimator, SVC | SVR):
        return _vectors_are_sound(held, estimator.n_features_in_)
    if isinstance(estimator, KNeighborsClassifier | KNeighborsRegressor):
        rows = held["n_samples_fit_"]
        return bool(held["_fit_X"].shape == (rows, estimator.n_features_in_) and held["_y"].shape == (rows,))
    return True


def _vectors_are_sound(held: dict[str, Any], feature_count: int) -> bool:
    count, per_class = len(held["support_"]), held["_n_support"]
    classes = len(held.get("classes_", "ab"))  # libsvm gives a regressor two; the first count is the total
    return (
        held["_sparse"] is False
        and held["support_vectors_"].shape == (count, feature_count)
        and per_class.shape == (classes,)
        and bool(np.all(per_class >= 0))
        and (per_class.sum() if "classes_" in held else per_class[0]) == count
        and held["_dual_coef_"].shape == (classes - 1, count)
        and held["_intercept_"].shape == (classes * (classes - 1) // 2,)
        and held["_probA"].size == held["_probB"].size == 0
    )


def links_are_sound(estimator: Any) -> bool:
    """Return whether every tree of a fitted estimator links forward only, to existing nodes and features.

    Compiled code follows these links without a check; in an altered file they could lead outside the arrays or form
    a loop.
    """
    count = int(getattr(estimator, "n_features_in_", 0))
    forest = all(_tree_is_sound(tree.tree_, count) for tree in getattr(estimator, "estimators_", []))
    boosted = getattr(estimator, "_predictors", [])
    return forest and all(_nodes_are_sound(tree.nodes, count) for group in boosted for tree in group)


def _tree_is_sound(tree: Any, feature_count: int) -> bool:
    if tree.node_count != tree.capacity:  # capacity is the array's size, but its views use node_count
        return False
    inner = tree.children_left != -1
    children = np.stack([tree.children_left[inner], tree.children_right[inner]])
    return _forward(children, np.flatnonzero(inner), tree.node_count) and bool(
        np.all((tree.feature[inner] >= 0) & (tree.feature[inner] < feature_count)) and tree.n_features == feature_count
    )


def _nodes_are_sound(nodes: Any, feature_count: int) -> bool:
    inner = nodes["is_leaf"] == 0
    children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
    return _forward(children, np.flatnonzero(inner), len(nodes)) and bool(
        np.all((nodes["feature_idx"][inner] >= 0) & (nodes["feature_idx"][inner] < feature_count))
        and not np.any(nodes["is_categorical"])
    )


def _forward(children: Any, parents: Any, count: int) -> bool:
    return bool(np.all((children > parents) & (children < count)))
