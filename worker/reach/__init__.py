"""All access to other machines: connections, checked addresses, downloads, circuit breakers."""
