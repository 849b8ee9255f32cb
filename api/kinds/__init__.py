"""`/job-kinds`: the catalogue of kinds."""
