"""A new table that is restored is the one that was backed up: types, defaults, keys, indexes, checks, numbers."""

# ruff: noqa: S608 - the test's own names and values

from __future__ import annotations

import hashlib
import io
import json
import secrets
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import TaskFailure
from tests.support.engines import Engine, make_engine, postgresql_at
from tests.worker.maintenance.backup.test_backup import bounds
from worker.maintenance.backup.backup import back_up_tables
from worker.maintenance.backup.restore import Restored, restore_table, restore_tables
from worker.tables.databases.postgresql.database import Postgresql

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.maintenance.backup.manifest import Manifest

HOSTILE = 'a"b; DROP TABLE x --'
NAME = '"' + HOSTILE.replace('"', '""') + '"'


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make_engine(request.param, tmp_path, request)


@pytest.fixture
def postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return make_engine("postgresql", tmp_path, request)


def backed_up(engine: Engine, *tables: str) -> tuple[Path, Manifest]:
    """Return a backup of tables, and what it says of itself."""
    backup = engine.folder / f"{'-'.join(tables)}.zip"
    return backup, back_up_tables(engine.database, tables, backup, bounds(engine.folder))


def restored(
    engine: Engine, backup: Path, names: Mapping[str, str] | None = None, *, load_id: str = "one", replace: bool = False
) -> Restored:
    """Restore tables of a backup."""
    return restore_tables(
        backup, engine.database, names, replace=replace, load_id=load_id, bounds=bounds(engine.folder)
    )


POSTGRESQL = (
    "CREATE TYPE mood AS ENUM ('ok', 'no')",
    "CREATE FUNCTION odd(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 % 2 = 1'",
    "CREATE SEQUENCE shared_numbers",
    (
        f"CREATE TABLE sales (id int GENERATED ALWAYS AS IDENTITY (START WITH 10 INCREMENT BY 5) PRIMARY KEY, "
        f"old serial, {NAME} varchar(20) COLLATE \"C\" NOT NULL DEFAULT 'x;y''--', mood mood DEFAULT 'ok', "
        "price numeric(10, 2) CHECK (price > 0), twice numeric GENERATED ALWAYS AS (price * 2) STORED, "
        "made timestamptz(3) DEFAULT now(), tags text[] DEFAULT ARRAY['a', 'b'], shared int DEFAULT "
        f"nextval('shared_numbers'), parent int, span int4range, CHECK (odd(parent)), "
        f'CONSTRAINT "sales_un;ique" UNIQUE ({NAME}, price) DEFERRABLE, EXCLUDE USING gist (span WITH &&), '
        "FOREIGN KEY (parent) REFERENCES sales (id))"
    ),
    f"CREATE INDEX sales_lower ON sales USING btree (lower({NAME}) text_pattern_ops DESC) WHERE price > 1",
    "CREATE UNIQUE INDEX ON sales (old) INCLUDE (price)",
    "COMMENT ON TABLE sales IS 'it''s'", f"COMMENT ON COLUMN sales.{NAME} IS 'hostile'",
    "COMMENT ON INDEX sales_lower IS 'lower'",
    f"INSERT INTO sales ({NAME}, price, span) VALUES ('a', 1.5, '[1,2)'), ('b', 2, '[3,4)'), ('c', NULL, NULL)",
    "DELETE FROM sales WHERE price IS NULL",
)  # fmt: skip
LOOK = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attcollation,
           regexp_replace(pg_get_expr(d.adbin, d.adrelid), 'restored|sales', 't'), col_description(a.attrelid, a.attnum)
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = '{0}'::regclass AND a.attnum > 0 ORDER BY a.attnum
"""
LOOK_AT_KEYS = """
    SELECT replace(conname, '{0}', 't'), replace(pg_get_constraintdef(oid), '{0}', 't') FROM pg_constraint
    WHERE conrelid = '{0}'::regclass ORDER BY 1
"""
LOOK_AT_INDEXES = """
    SELECT replace(indexname, '{0}', 't'), replace(indexdef, '{0}', 't'), obj_description(indexname::regclass)
    FROM pg_indexes WHERE tablename = '{0}' AND indexname NOT LIKE '%;%' ORDER BY 1
"""


def test_a_table_of_postgresql_is_made_as_it_was(postgresql: Engine) -> None:
    """Beside the one that was backed up; what it does not have is said by name, and its numbers go on on their own."""
    postgresql.run(*POSTGRESQL)
    backup, manifest = backed_up(postgresql, "sales")
    assert manifest.left_out == ["the check 'sales_parent_check' of sales: its function 'odd' is volatile"]
    done = restored(postgresql, backup, {"sales": "restored"})
    assert done.left_out == manifest.left_out
    postgresql.run("ALTER TABLE sales DROP CONSTRAINT sales_parent_check")
    for look in (LOOK, LOOK_AT_KEYS, LOOK_AT_INDEXES):
        assert postgresql.run(look.format("restored")) == postgresql.run(look.format("sales"))
    rows = "SELECT r::text FROM {} r ORDER BY id"
    assert postgresql.run(rows.format("restored")) == postgresql.run(rows.format("sales"))
    postgresql.run("DROP TABLE sales")
    new = "INSERT INTO restored (price) VALUES (9) RETURNING id, old, twice::int, shared"
    assert postgresql.run(new) == [(25, 4, 18, 4)]  # the row that is gone has had 20, 3 and 3
    with pytest.raises(Exception, match="restored_price_check"):
        postgresql.run("INSERT INTO restored (price) VALUES (-1)")


SQLITE = (
    (
        f"CREATE TABLE sales (id INTEGER PRIMARY KEY AUTOINCREMENT, {NAME} TEXT NOT NULL DEFAULT 'x;y''--' COLLATE "
        "NOCASE, price REAL CHECK (price > 0), twice REAL GENERATED ALWAYS AS (price * 2) STORED, day DATE, "
        f"parent REFERENCES sales (id), UNIQUE ({NAME}, price) ON CONFLICT ABORT)"
    ),
    f"CREATE INDEX sales_lower ON sales (lower({NAME}) DESC) WHERE price > 1",
    "CREATE UNIQUE INDEX [sales;day] ON sales (day, id)",
    f"INSERT INTO sales ({NAME}, price, day) VALUES ('a', 1.5, '2026-01-01T10:00'), ('b', 2, 'soon'), ('c', 3, '')",
    "DELETE FROM sales WHERE id = 3",
)
DUCKDB = (
    "CREATE SEQUENCE numbers START 7",
    (
        f"CREATE TABLE sales (id INTEGER PRIMARY KEY DEFAULT nextval('numbers'), {NAME} VARCHAR NOT NULL DEFAULT "
        "'x;y''--' COLLATE NOCASE, mood ENUM('ok', 'it''s'), price DECIMAL(10, 2) CHECK (price > 0), "
        f"twice DECIMAL(12, 2) GENERATED ALWAYS AS (price * 2), UNIQUE ({NAME}, price))"
    ),
    f"CREATE INDEX sales_lower ON sales (lower({NAME}))",
    'CREATE UNIQUE INDEX "sales;mood" ON sales (mood, id)',
    "COMMENT ON TABLE sales IS 'it''s'", f"COMMENT ON COLUMN sales.{NAME} IS 'hostile'",
    f"INSERT INTO sales ({NAME}, mood, price) VALUES ('a', 'ok', 1.5), ('b', 'it''s', 2)",
)  # fmt: skip


def definition_in(engine: Engine, table: str) -> list[tuple[Any, ...]]:
    """Return what the engine shows of a table, with one name for all tables."""
    if engine.kind == "sqlite":
        shown = engine.run(f"SELECT name, sql FROM sqlite_master WHERE tbl_name = '{table}' ORDER BY type, name")
    else:
        place = f"WHERE table_name = '{table}' ORDER BY 1"
        shown = engine.run(f"SELECT sql, comment FROM duckdb_tables() {place}")
        shown += engine.run(f"SELECT index_name, sql FROM duckdb_indexes() {place}")
        shown += engine.run(f"SELECT column_name, comment FROM duckdb_columns() {place}")
    return [
        tuple(str(one).replace('"', "").replace("[", "").replace("]", "").replace(table, "t") for one in row)
        for row in shown
    ]


@pytest.mark.parametrize(("engine", "made"), [("sqlite", SQLITE), ("duckdb", DUCKDB)], indirect=["engine"])
def test_a_table_of_the_other_engines_is_made_as_it_was(
    engine: Engine, made: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Beside the one that was backed up, and in another file; texts of times keep their letters."""
    engine.run(*made)
    backup, manifest = backed_up(engine, "sales")
    assert manifest.left_out == []
    assert restored(engine, backup, {"sales": "restored"}).left_out == []
    assert definition_in(engine, "restored") == definition_in(engine, "sales")
    rows = engine.run("SELECT * FROM sales ORDER BY id")
    assert engine.run("SELECT * FROM restored ORDER BY id") == rows
    (tmp_path / "other").mkdir()
    elsewhere = make_engine(engine.kind, tmp_path / "other", request)
    restored(elsewhere, backup)
    assert definition_in(elsewhere, "sales") == definition_in(engine, "sales")
    elsewhere.run(f"INSERT INTO sales ({NAME}) VALUES ('next')")
    assert elsewhere.run("SELECT * FROM sales ORDER BY id")[:2] == rows
    assert elsewhere.run("SELECT max(id) FROM sales") == [(4,)] if engine.kind == "sqlite" else [(9,)]
    with pytest.raises(Exception, match=r"(?i)check"):
        engine.run(f"INSERT INTO restored ({NAME}, price) VALUES ('x', -1)")


FAMILY = (
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers (id), note VARCHAR)",
    "INSERT INTO customers VALUES (1, 'a'), (2, 'b')",
    "INSERT INTO orders VALUES (1, 2, 'first'), (2, 1, NULL)",
)


@pytest.mark.parametrize("engine", ["postgresql", "sqlite", "duckdb"], indirect=True)
def test_several_tables_are_restored_with_the_keys_between_them(engine: Engine) -> None:
    """Whatever order they are named in; a key to a table that is not restored is said to be missing."""
    engine.run("CREATE TABLE customers (id INTEGER PRIMARY KEY, name VARCHAR UNIQUE)", *FAMILY)
    backup, manifest = backed_up(engine, "orders", "customers")
    assert [(table.name, table.row_count) for table in manifest.tables] == [("customers", 2), ("orders", 2)]
    names = {"orders": "orders_2", "customers": "customers_2"}
    done = restored(engine, backup, names)
    assert (done.tables, done.left_out) == ({"customers_2": 2, "orders_2": 2}, [])
    assert restored(engine, backup, names).tables == done.tables  # another delivery of the same job
    engine.run("DELETE FROM orders", "DROP TABLE orders")
    engine.run("DROP TABLE customers")
    assert engine.run("SELECT id, customer, note FROM orders_2 ORDER BY id") == [(1, 2, "first"), (2, 1, None)]
    if engine.kind == "sqlite":  # which looks at keys only where a session asks for it
        assert engine.run("SELECT \"table\" FROM pragma_foreign_key_list('orders_2')") == [("customers_2",)]
    else:
        with pytest.raises(Exception, match=r"(?i)foreign key"):
            engine.run("INSERT INTO orders_2 VALUES (3, 9, '')")
    alone = restored(engine, backup, {"orders": "orders_3"}, load_id="two")
    kept = engine.kind == "sqlite"  # the key says its table's name, whatever there is
    assert len(alone.left_out) == (0 if kept else 1)
    assert all("customers, which is not restored" in one for one in alone.left_out)


@pytest.mark.parametrize("engine", ["postgresql", "sqlite"], indirect=True)
def test_several_tables_give_way_to_their_backup(engine: Engine) -> None:
    """Rows that refer to others go first and come last, all in one transaction."""
    engine.run("CREATE TABLE customers (id INTEGER PRIMARY KEY, name VARCHAR UNIQUE)", *FAMILY)
    backup, _ = backed_up(engine, "orders", "customers")
    engine.run("UPDATE orders SET note = 'other'", "INSERT INTO customers VALUES (3, 'c')")
    with pytest.raises(TaskFailure, match="already exists"):
        restored(engine, backup)
    restored(engine, backup, replace=True)
    assert engine.run("SELECT note FROM orders ORDER BY id") == [("first",), (None,)]
    assert engine.run("SELECT name FROM customers ORDER BY id") == [("a",), ("b",)]


def test_all_tables_are_of_one_moment(postgresql: Engine) -> None:
    """Rows that are committed while the first table is read are in none of them."""
    postgresql.run("CREATE TABLE one (id int)", "CREATE TABLE two (id int)", "INSERT INTO one VALUES (1)")
    limits = bounds(postgresql.folder)
    seen: list[str] = []

    def write(*_: object) -> None:
        if not seen:
            seen.append("written")
            postgresql.run("INSERT INTO one VALUES (2)", "INSERT INTO two VALUES (2)")

    backup = postgresql.folder / "both.zip"
    manifest = back_up_tables(
        postgresql.database, ["one", "two"], backup, type(limits)(**{**vars(limits), "on_progress": write})
    )
    assert seen
    assert [table.row_count for table in manifest.tables] == [1, 0]


def test_rows_of_other_tables_are_not_deleted_with_those_that_give_way(postgresql: Engine) -> None:
    """A foreign key that cascades would empty a table that nobody named."""
    postgresql.run(
        "CREATE TABLE customers (id int PRIMARY KEY)",
        "CREATE TABLE orders (id int REFERENCES customers ON DELETE CASCADE)",
        "INSERT INTO customers VALUES (1)", "INSERT INTO orders VALUES (1)",
    )  # fmt: skip
    backup, _ = backed_up(postgresql, "customers")
    with pytest.raises(TaskFailure, match="'orders_id_fkey' of orders"):
        restored(postgresql, backup, replace=True)
    assert postgresql.run("SELECT * FROM orders") == [(1,)]


def test_a_table_whose_rows_may_be_those_of_others_is_refused(postgresql: Engine) -> None:
    """They would be restored as its own."""
    postgresql.run("CREATE TABLE sales (id int)", "CREATE TABLE child () INHERITS (sales)")
    with pytest.raises(TaskFailure, match="inherit from it"):
        backed_up(postgresql, "sales")


def test_a_table_that_shows_only_some_rows_is_refused(postgresql: Engine) -> None:
    """A backup of the rows that an account may see would look like one of all."""
    role = f"reader_{secrets.token_hex(4)}"
    postgresql.run(
        "CREATE TABLE sales (id int)", "ALTER TABLE sales ENABLE ROW LEVEL SECURITY",
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'", f"GRANT SELECT ON sales TO {role}",
    )  # fmt: skip
    assert isinstance(postgresql.database, Postgresql)
    parts = urlsplit(postgresql.database.url)
    url = urlunsplit(parts._replace(netloc=f"{role}:secret@{parts.hostname}:{parts.port}"))
    try:
        with pytest.raises(TaskFailure, match="row-level security"):
            backed_up(postgresql_at(url, postgresql.folder), "sales")
    finally:
        postgresql.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def forged(backup: Path, change: Any) -> Path:
    """Return the backup with a changed manifest, whose checksums are right."""
    other = backup.with_name(f"forged-{backup.name}")
    with zipfile.ZipFile(backup) as before, zipfile.ZipFile(other, "w") as after:
        manifest = json.loads(before.read("manifest.json"))
        change(manifest["tables"][0]["definition"])
        for info in before.infolist():
            after.writestr(info, json.dumps(manifest) if info.filename == "manifest.json" else before.read(info))
    return other


#: A part of a definition, and what it must not be.
EVIL: dict[str, list[tuple[str, Any]]] = {
    "sqlite": [
        ("statement", "CREATE TABLE sales (id INTEGER); DROP TABLE victim"),
        ("statement", "DROP TABLE victim"),
        ("statement", "ATTACH 'other.db' AS other"),
        ("statement", "CREATE TABLE sales AS SELECT 1 AS id"),
        ("statement", "CREATE VIRTUAL TABLE sales USING fts5 (id)"),
        ("indexes", ["CREATE TRIGGER t AFTER INSERT ON sales BEGIN DELETE FROM victim; END"]),
    ],
    "duckdb": [
        ("statement", "CREATE TABLE sales(id INTEGER); DROP TABLE victim;"),
        ("statement", "CREATE TABLE sales(id) AS (SELECT * FROM read_text('/etc/passwd'))"),
        ("statement", "COPY victim TO 'x.csv'"),
        ("indexes", ["CREATE INDEX i ON sales(id); DROP TABLE victim; CREATE INDEX k ON sales(id);"]),
    ],
    "postgresql": [
        ("type", "int); DROP TABLE victim; --"),
        ("type", "int DEFAULT 1"),
        ("default", "1), other int DEFAULT (2"),
        ("default", "E'\\'); DROP TABLE victim; --'"),
        ("generated", "1) STORED, evil int DEFAULT (2"),
        ("constraints", [{"name": "c", "text": "CHECK (true), DROP COLUMN id"}]),
        ("constraints", [{"name": "c", "text": "CHECK (pg_notify('a', 'b') IS NULL)"}]),
        ("indexes", [{"name": "i", "text": "btree (id); DROP TABLE victim"}]),
        (
            "foreign_keys",
            [{"name": "f", "columns": ["id"], "table": "sales", "referenced": ["id"],
              "options": " ON DELETE CASCADE; DROP TABLE victim"}],
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("engine", list(EVIL), indirect=True)
def test_a_forged_definition_does_nothing_but_what_a_table_is(engine: Engine) -> None:
    """It is refused, and nothing that it says beside was done."""
    engine.run("CREATE TABLE sales (id INTEGER)", "INSERT INTO sales VALUES (1)", "CREATE TABLE victim (id INTEGER)")
    backup, _ = backed_up(engine, "sales")
    for at, evil in EVIL[engine.kind]:

        def change(definition: dict[str, Any], at: str = at, evil: Any = evil) -> None:
            (definition["columns"][0] if at in {"type", "default", "generated"} else definition)[at] = evil

        with pytest.raises(TaskFailure) as raised:
            restored(engine, forged(backup, change), {"sales": "restored"})
        assert raised.value.code in {"definition_not_restorable", "value_refused"}, evil
        assert engine.run("SELECT count(*) FROM victim") == [(0,)]
        with pytest.raises(Exception, match=r"(?i)restored"):
            engine.run("SELECT * FROM restored")


@pytest.mark.parametrize("engine", ["postgresql", "sqlite", "duckdb"], indirect=True)
def test_a_backup_of_the_old_format_is_restored(engine: Engine) -> None:
    """With the columns that it has; what a new table does not have is said, and one that is there needs nothing."""
    rows = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([1, 2], pa.int32()), "name": ["a", None]}), rows)
    entry = {"path": "table.parquet", "size_bytes": rows.tell(), "sha256": hashlib.sha256(rows.getvalue()).hexdigest()}
    texts = [hashlib.sha256(text.encode()).digest() for text in ("1:11:a", "1:2-")]
    words = (sum(int.from_bytes(one[at : at + 8], "big") for one in texts) for at in (0, 8))
    manifest = {
        "format": "celeriac-backup", "version": 1, "kind": "table", "source": "warehouse:public.sales",
        "created_at": "2026-01-01T00:00:00+00:00", "digest": "-".join(f"{word:x}" for word in words), "row_count": 2,
        "columns": [{"name": "id", "type": "int32"}, {"name": "name", "type": "string"}], "files": [entry],
    }  # fmt: skip
    backup = engine.folder / "old.zip"
    with zipfile.ZipFile(backup, "w") as file:
        file.writestr("content/table.parquet", rows.getvalue())
        file.writestr("manifest.json", json.dumps(manifest))
    engine.run("CREATE TABLE here (id INTEGER PRIMARY KEY, name VARCHAR)")
    for table, replace in (("fresh", False), ("here", True)):
        done = restore_table(
            backup, engine.database, table, replace=replace, load_id=table, bounds=bounds(engine.folder)
        )
        assert engine.run(f"SELECT * FROM {table} ORDER BY id") == [(1, "a"), (2, None)]
        assert ["before definitions were kept" in one for one in done.left_out] == ([] if replace else [True])


def test_another_engine_gets_the_columns_and_says_so(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Texts of times in SQLite become times there."""
    (tmp_path / "made").mkdir()
    made, target = make_engine("sqlite", tmp_path / "made", request), make_engine("duckdb", tmp_path, request)
    made.run("CREATE TABLE sales (id INTEGER, made TIMESTAMP)", "INSERT INTO sales VALUES (1, '2026-01-01T10:00')")
    backup, _ = backed_up(made, "sales")
    done = restored(target, backup)
    assert done.left_out == ["sales has its columns only: the backup is of SQLite"]
    assert target.run("SELECT CAST(made AS VARCHAR), typeof(made) FROM sales") == [("2026-01-01 10:00:00", "TIMESTAMP")]
