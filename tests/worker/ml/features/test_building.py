"""Features: what a recipe makes of columns is what pandas and scikit-learn, called directly, make of them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer

from shared.errors import TaskFailure
from shared.jobs.ml.kinds import BuildFeatures, TrainModel
from tests.support.ml_runs import fetched, iris, new_run, stored
from worker.ml import tasks

if TYPE_CHECKING:
    from pathlib import Path

    from shared.jobs.ml.results import FeatureResult

BERLIN = dt.timezone(dt.timedelta(hours=2))
TEXTS = ["a fine day", "no day", None, "fine, fine words"]
ROWS = pa.table(
    {
        "size": pa.array([1.0, None, 4.0, float("inf")]),
        "count": pa.array([1, 2, None, 5], pa.int32()),
        "sold": [True, None, False, True],
        "colour": ["red", "blue", None, "red"],
        "grade": ["low", "high", None, "middle"],
        "seen": pa.array([dt.datetime(2026, 3, 1, 1, 30, tzinfo=BERLIN)] * 3 + [None], pa.timestamp("us", "+02:00")),
        "born": [dt.date(2026, 1, 5), dt.date(2026, 1, 11), None, dt.date(2024, 2, 29)],
        "note": TEXTS,
        "price": [10, 20, 30, None],
    }
)


def build(folder: Path, table: pa.Table | pd.DataFrame, **params: Any) -> FeatureResult:
    job = BuildFeatures.model_validate({"dataset": stored(folder, table), **params})
    return tasks.build_features(job, new_run(folder))


def only(name: str, **feature: Any) -> dict[str, Any]:
    return {"features": {"columns": {name: feature}, "others": "drop"}}


def column(folder: Path, name: str, **feature: Any) -> pd.DataFrame:
    return fetched(folder, build(folder, ROWS, **only(name, **feature)).dataset.uri)


def test_roles_follow_from_types_and_the_target_stays_as_it_is(tmp_path: Path) -> None:
    """Numbers, truth values, strings and dates get a role; what is dropped and what is the target get none."""
    result = build(tmp_path, ROWS, target="price", features={"drop": ["note"]})
    assert result.roles == {
        "size": "number", "count": "number", "sold": "number", "colour": "category", "grade": "category",
        "seen": "date", "born": "date",
    }  # fmt: skip
    assert result.dropped == ["note"]
    frame = fetched(tmp_path, result.dataset.uri)
    assert len(frame.columns) == result.feature_count + 1
    assert frame["price"].tolist()[:3] == [10, 20, 30]
    assert not frame.drop(columns="price").isna().to_numpy().any()


@pytest.mark.parametrize(
    ("impute", "expected"),
    [
        ("median", [1.0, 2.0, 2.0, 5.0]),
        ("mean", [1.0, 2.0, 8 / 3, 5.0]),
        ("constant", [1.0, 2.0, -1.0, 5.0]),
        ("none", [1.0, 2.0, None, 5.0]),
    ],
)
def test_missing_numbers(tmp_path: Path, impute: str, expected: list[float | None]) -> None:
    """A missing number becomes what `impute` says."""
    frame = column(tmp_path, "count", kind="number", impute=impute, fill_value=-1.0, scale="none")
    assert frame["count"].tolist() == pytest.approx([np.nan if v is None else v for v in expected], nan_ok=True)


def test_scaling_is_that_of_pandas(tmp_path: Path) -> None:
    """Standard, min-max and robust scaling agree with their definitions; an infinite value counts as missing."""
    filled = pd.Series([1.0, 2.5, 4.0, 2.5])
    expected = {
        "standard": (filled - filled.mean()) / filled.std(ddof=0),
        "min_max": (filled - 1) / 3,
        "robust": (filled - filled.median()) / (filled.quantile(0.75) - filled.quantile(0.25)),
    }
    for scale, values in expected.items():
        assert column(tmp_path, "size", kind="number", scale=scale)["size"].tolist() == pytest.approx(list(values))
    indicated = column(tmp_path, "size", kind="number", scale="none", missing_indicator=True)
    assert indicated.iloc[:, 1].tolist() == [0, 1, 0, 1]


def test_categories(tmp_path: Path) -> None:
    """One-hot with missing values as a category, or as the most frequent one; ordinals in the order given."""
    own = column(tmp_path, "colour", kind="category")
    assert own.to_dict("list") == {
        "colour_(missing)": [0, 0, 1, 0], "colour_blue": [0, 1, 0, 0], "colour_red": [1, 0, 0, 1],
    }  # fmt: skip
    frequent = column(tmp_path, "colour", kind="category", impute="most_frequent")
    assert frequent["colour_red"].tolist() == [1, 0, 1, 1]
    few = column(tmp_path, "grade", kind="category", max_categories=2)
    assert len(few.columns) == 2
    ordered = column(tmp_path, "grade", kind="ordinal", order=["low", "middle", "high"])
    assert ordered["grade"].tolist() == [0, 2, -1, 1]


def test_parts_of_dates_are_in_utc(tmp_path: Path) -> None:
    """01:30 on 1 March at +02:00 is 23:30 on 28 February; a missing one becomes the median."""
    seen = column(tmp_path, "seen", kind="date", parts=["month", "day", "hour", "minute"], scale="none")
    assert seen.iloc[0].tolist() == [2, 28, 23, 30]
    assert seen.iloc[3].tolist() == [2, 28, 23, 30]
    parts = ["year", "quarter", "weekday", "day_of_year", "epoch_days"]
    born = column(tmp_path, "born", kind="date", parts=parts, scale="none").iloc[[0, 1, 3]].reset_index(drop=True)
    days = pd.to_datetime(pd.Series(["2026-01-05", "2026-01-11", "2024-02-29"]))
    expected = [
        days.dt.year,
        days.dt.quarter,
        days.dt.day_of_week,
        days.dt.day_of_year,
        (days - pd.Timestamp(0)).dt.days,
    ]
    assert born.to_numpy().T.tolist() == [one.tolist() for one in expected]


def test_texts_weigh_as_in_scikit_learn(tmp_path: Path) -> None:
    """TF-IDF, hashing and the reduced form are those of scikit-learn; features are named after words."""
    filled = [text or "" for text in TEXTS]
    tfidf = column(tmp_path, "note", kind="text", max_features=4)
    direct = TfidfVectorizer(max_features=4)
    np.testing.assert_allclose(tfidf.to_numpy(), direct.fit_transform(filled).toarray())
    assert list(tfidf.columns) == [f"note: {word}" for word in direct.get_feature_names_out()]
    hashed = column(tmp_path, "note", kind="text", method="hashing", max_features=8, ngram_max=2)
    direct_hashes = HashingVectorizer(n_features=8, ngram_range=(1, 2)).transform(filled)
    np.testing.assert_allclose(hashed.to_numpy(), direct_hashes.toarray())
    reduced = column(tmp_path, "note", kind="text", method="hashing", max_features=8, ngram_max=2, components=2)
    expected = TruncatedSVD(2, random_state=0).fit_transform(direct_hashes)
    np.testing.assert_allclose(reduced.to_numpy(), expected, atol=1e-12)


def test_a_recipe_is_applied_as_it_was_learnt(tmp_path: Path) -> None:
    """Other rows get the means, categories and words of the rows that the recipe was learnt from."""
    learnt = build(tmp_path, ROWS, target="price", features={"columns": {"note": {"kind": "text"}}})
    before = fetched(tmp_path, learnt.dataset.uri)
    other = ROWS.slice(1, 2).set_column(3, "colour", pa.array(["never seen", "red"]))
    applied = build(tmp_path, other, recipe=learnt.recipe.uri)
    after = fetched(tmp_path, applied.dataset.uri)
    assert (applied.recipe.sha256, applied.feature_count) == (learnt.recipe.sha256, learnt.feature_count)
    assert applied.recipe.uri != learnt.recipe.uri
    same = [name for name in before.columns if not name.startswith("colour")]
    pd.testing.assert_frame_equal(after[same], before.iloc[1:3][same].reset_index(drop=True), check_dtype=False)
    assert after.filter(like="colour").to_numpy().tolist() == [[0, 0, 0], [0, 0, 1]]


def test_a_recipe_in_training_is_learnt_again_from_training_rows(tmp_path: Path) -> None:
    """Fed with a table of features and its recipe, training gives what it gives with the rows and `features`."""
    params = {"task": "classification", "target": "species", "estimator": {"kind": "logistic_regression"}}
    built = build(tmp_path, iris(), target="species", features={"drop": ["id"]})
    results = [
        tasks.train_model(TrainModel.model_validate({**params, **given}), new_run(tmp_path))
        for given in (
            {"dataset": stored(tmp_path, iris()), "features": {"drop": ["id"]}},
            {"dataset": built.dataset.uri, "recipe": built.recipe.uri},
        )
    ]
    assert results[0].summary.evaluation == results[1].summary.evaluation
    held_out = results[1].dataset
    assert held_out is not None
    assert [one.name for one in held_out.columns] == list(iris().columns)


def test_columns_of_any_arrow_type_give_the_same_features(tmp_path: Path) -> None:
    """Decimals, small and unsigned integers, half floats, large strings, dictionaries: what counts is the value."""
    types: dict[str, list[Any]] = {
        "n": [pa.int64(), pa.uint8(), pa.float16(), pa.decimal128(25, 2), pa.dictionary(pa.int8(), pa.int64())],
        "c": [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
        "d": [pa.date32(), pa.date64(), pa.timestamp("ns"), pa.timestamp("s")],
    }
    day = dt.datetime(2026, 5, 17)  # noqa: DTZ001 - a date without a zone
    values: dict[str, list[Any]] = {"n": [1, 2, None], "c": ["a", None, "b"], "d": [day, None, day]}
    plain = {"n": pa.int64(), "c": pa.string(), "d": pa.date32()}
    for name, kinds in types.items():
        spec = {"features": {"columns": {"d": {"kind": "date"}}}} if name == "d" else {}  # with the hour by default
        expected = build(tmp_path, pa.table({name: pa.array(values[name]).cast(plain[name])}), **spec)
        for kind in kinds:
            column = pa.array(values[name]).cast(plain[name])
            column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
            found = build(tmp_path, pa.table({name: column}), **spec)
            pd.testing.assert_frame_equal(fetched(tmp_path, found.dataset.uri), fetched(tmp_path, expected.dataset.uri))


def test_names_of_features_are_distinct(tmp_path: Path) -> None:
    """Names that differ by case only, or that a target has, get a number, since the table may go into a database."""
    table = pa.table({"c": ["x", "X", "y"], "c_y": [1, 2, 3]})
    names = [one.name for one in build(tmp_path, table, target="c_y").dataset.columns]
    assert names == ["c_X#0", "c_x#1", "c_y#2", "c_y"]


@pytest.mark.parametrize(
    ("features", "code", "said"),
    [
        ({"columns": {"colour": {"kind": "number"}}}, "wrong_column_type", "'colour' is string"),
        ({"columns": {"size": {"kind": "category"}}}, "wrong_column_type", "'size' is double"),
        ({"columns": {"color": {"kind": "category"}}}, "unknown_column", "'color'"),
        ({"columns": {"price": {"kind": "number"}}}, "unknown_column", "price"),
        ({"columns": {"colour": {"kind": "text", "analyzer": "word"}}, "others": "drop"}, None, ""),
        ({"drop": ["size"], "others": "drop"}, "no_features", "No column"),
    ],
)
def test_what_makes_no_features_is_refused(
    tmp_path: Path, features: dict[str, Any], code: str | None, said: str
) -> None:
    """The failure names the column and what it is."""
    if code is None:
        assert build(tmp_path, ROWS, features=features).feature_count == 2
        return
    table = ROWS.drop_columns("price") if "price" in features.get("columns", {}) else ROWS
    with pytest.raises(TaskFailure) as failure:
        build(tmp_path, table, features=features)
    assert failure.value.code == code
    assert said in failure.value.message


def test_too_many_features_and_empty_vocabularies_are_refused(tmp_path: Path) -> None:
    """Bounded width; a text column without a word has nothing to weigh."""
    wide = pa.table({f"c{index}": [f"{row}" for row in range(300)] for index in range(4)})
    spec = {"columns": {name: {"kind": "category", "max_categories": 300} for name in wide.schema.names}}
    with pytest.raises(TaskFailure) as failure:
        build(tmp_path, wide, features=spec)
    assert (failure.value.code, failure.value.details["feature_count"]) == ("too_many_features", 1_200)
    empty = pa.table({"t": ["a", "b", "."]})
    with pytest.raises(TaskFailure, match="vocabulary"):
        build(tmp_path, empty, features={"columns": {"t": {"kind": "text"}}})


def test_times_and_durations_are_features(tmp_path: Path) -> None:
    """A time of day has hour and minute, a timestamp its hour too, a duration its seconds."""
    at = dt.datetime(2026, 3, 1, 13, 45)  # noqa: DTZ001 - without a zone
    table = pa.table(
        {"opens": [dt.time(9, 30), None, dt.time(17, 5)], "at": [at, at, None], "took": [dt.timedelta(seconds=1.5)] * 3}
    )
    result = build(tmp_path, table)
    assert result.roles == {"opens": "date", "at": "date", "took": "number"}
    names = ["opens: hour", "opens: minute", "at: year", "at: month", "at: day", "at: weekday", "at: hour", "took"]
    assert [one.name for one in result.dataset.columns] == names
    columns = {"opens": {"kind": "date", "scale": "none"}, "took": {"kind": "number", "scale": "none"}}
    told = fetched(tmp_path, build(tmp_path, table, features={"columns": columns, "others": "drop"}).dataset.uri)
    assert told.to_dict("list") == {"opens: hour": [9, 13, 17], "opens: minute": [30, 17.5, 5], "took": [1.5] * 3}
    with pytest.raises(TaskFailure, match="'opens' is a time of day, which has no year"):
        build(tmp_path, table, **only("opens", kind="date", parts=["year", "hour"]))


def test_a_column_without_any_value_takes_every_role(tmp_path: Path) -> None:
    """It has no type, whatever the file says; where no role is named, no feature is made of it."""
    roles: list[dict[str, Any]] = [
        {"kind": "number"}, {"kind": "category"}, {"kind": "category", "impute": "most_frequent"}, {"kind": "date"},
        {"kind": "ordinal"}, {"kind": "text", "method": "hashing", "max_features": 2},
    ]  # fmt: skip
    for kind in (pa.null(), pa.string(), pa.float64(), pa.date32()):
        table = pa.table({"empty": pa.nulls(4, kind), "a.b": [1, 2, 3, 4]})
        result = build(tmp_path, table)
        assert (result.roles, result.dropped) == ({"a.b": "number"}, ["empty"])
        for role in roles:
            made = build(tmp_path, table, **only("empty", **role))
            assert not fetched(tmp_path, made.dataset.uri).isna().to_numpy().any()
