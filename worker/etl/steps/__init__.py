"""Steps of a transformation, compiled to SQL."""
