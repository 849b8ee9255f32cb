"""Split rows into training and test rows: the same split for the same seed, on any machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from shared.errors import TaskFailure
from shared.jobs.ml.kinds import CrossValidation

if TYPE_CHECKING:
    from shared.jobs.ml.kinds import HoldOut
    from shared.jobs.ml.tuning import SearchSpec
    from worker.ml.data.rows import Rows

    Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


def held_out(rows: Rows, how: HoldOut, *, seed: int) -> tuple[Indices, Indices]:
    """Return the indices of training and held-out rows, ``(n_train,)`` and ``(n_test,)``.

    They are drawn by scikit-learn's `train_test_split` with this seed. Raises `TaskFailure` (``too_few_rows``) if a
    part or a class would be empty.
    """
    indices = np.arange(len(rows.target))
    stratify = rows.target if how.stratified and rows.labels is not None else None
    need_members(rows, 2, stratified=stratify is not None)
    try:
        train, test = train_test_split(indices, test_size=how.test_ratio, random_state=seed, stratify=stratify)
    except ValueError as impossible:
        raise _too_few(f"The rows cannot be split: {impossible}") from None
    return train, test


def folds(rows: Rows, how: CrossValidation, *, seed: int) -> list[tuple[Indices, Indices]]:
    """Return training and test rows of each fold, shuffled with `seed`. Raises `TaskFailure` (``too_few_rows``)."""
    stratified = how.stratified and rows.labels is not None
    need_members(rows, how.folds, stratified=stratified)
    splitter = (StratifiedKFold if stratified else KFold)(how.folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(rows.target)), rows.target))


def trial_folds(seen: Rows, spec: SearchSpec) -> list[tuple[Indices, Indices]]:
    """Return the cross-validation folds of the rows `seen`, which all trials of a search share."""
    how = CrossValidation(kind="cross_validation", folds=spec.folds, stratified=spec.hold_out.stratified)
    return folds(seen, how, seed=spec.seed)


def need_members(rows: Rows, least: int, *, stratified: bool) -> None:
    """Raise `TaskFailure` (``too_few_rows``) if there are fewer than `least` rows (of each class, if `stratified`)."""
    if len(rows.target) < least:
        raise _too_few(f"There are {len(rows.target)} rows; at least {least} are needed.")
    if rows.labels is None:
        return
    counts = np.bincount(rows.target, minlength=len(rows.labels))
    if np.count_nonzero(counts) < 2:  # noqa: PLR2004 - one class is nothing to tell apart
        only = rows.labels[int(np.argmax(counts))]
        raise _too_few(
            f"All {len(rows.target)} rows have the class {only!r}; a model needs rows of at least two classes.",
            remedy="Choose another target, or provide rows of another class: the rows of this class alone say nothing.",
        )
    if stratified and (smallest := counts[counts > 0].min()) < least:
        label = rows.labels[int(np.flatnonzero(counts == smallest)[0])]
        raise _too_few(f"Class {label!r} has {smallest} rows; at least {least} of each class are needed.")


def _too_few(
    message: str, *, remedy: str = "Provide more rows, use fewer folds, or set 'stratified' to false."
) -> TaskFailure:
    return TaskFailure("too_few_rows", message, remedy=remedy)
