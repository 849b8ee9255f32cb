"""The ETL family: extract, transform and load tables as Parquet, with DuckDB, Arrow and ADBC."""
