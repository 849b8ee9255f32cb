"""From datasets to the rows, columns and frames that models learn from."""
