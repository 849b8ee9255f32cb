"""HTTP: bodies, problems, page tokens, ranges, and the OpenAPI document."""
