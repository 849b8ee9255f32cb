"""What is wrong with a definition, each fault with what to do about it: its fields, its examples, its task."""
