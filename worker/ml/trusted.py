"""The types that a model file may hold beyond those that skops itself trusts, each with the reason.

skops trusts Python's plain values, NumPy arrays without objects, and scikit-learn's estimators. What is not listed
here or there is refused by name before anything of the file is constructed. A type comes into this list after
its `__reduce__`, `__setstate__` and constructor were read: none of them may call what the file names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

TRUSTED_TYPES = {
    # skops stores it as the header of an empty array and reads that with `allow_pickle=False`.
    "numpy.dtype": "the dtype that an imputer was fitted on",
    # Arrays of nodes with a fixed dtype, checked in Cython (`_check_node_ndarray`); links are checked below.
    "sklearn.tree._tree.Tree": "the trees of random forests",
    # A structured array of nodes and two bit sets; a plain Python class without hooks.
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": "the trees of gradient boosting",
}


def links_are_sound(estimator: Any) -> bool:
    """Return whether every tree of a fitted estimator points forward, to nodes and features that are there.

    Compiled code follows these links without looking; in an altered file they could lead out of the arrays or
    round in a circle.
    """
    count = int(getattr(estimator, "n_features_in_", 0))
    forest = all(_tree_is_sound(tree.tree_, count) for tree in getattr(estimator, "estimators_", []))
    boosted = getattr(estimator, "_predictors", [])
    return forest and all(_nodes_are_sound(tree.nodes, count) for group in boosted for tree in group)


def _tree_is_sound(tree: Any, feature_count: int) -> bool:
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
