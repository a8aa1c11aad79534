"""Click logs with any columns: their description, and the parsing of their text and Parquet files."""
