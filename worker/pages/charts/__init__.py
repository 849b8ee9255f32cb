"""Draw charts as SVG, and say them in words and tables."""
