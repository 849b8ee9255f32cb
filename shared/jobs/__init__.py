"""The contracts that come with the service, one module a family."""
