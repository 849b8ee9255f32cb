"""The external systems that jobs may name, and the addresses that clients may use."""
