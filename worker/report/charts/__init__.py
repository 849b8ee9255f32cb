"""Charts: figures computed, drawn, and told in words."""
