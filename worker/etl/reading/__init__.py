"""Files of every format, read into Parquet."""
