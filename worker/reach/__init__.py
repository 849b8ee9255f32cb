"""Everything that leaves the machine: connections, checked addresses, downloads, circuit breakers."""
