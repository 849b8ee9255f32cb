"""The figures of charts, computed from datasets."""
