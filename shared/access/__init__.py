"""Who may do what: keys, scopes, restrictions, and the keys in the ledger."""
