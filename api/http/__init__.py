"""HTTP itself: bodies in, problems out, page tokens, ranges, and the document that describes it all."""
