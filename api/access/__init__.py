"""Who may do what: keys, what each route needs, and the door."""
