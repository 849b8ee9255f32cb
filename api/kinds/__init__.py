"""`/job-kinds`: the catalogue of what can be submitted."""
