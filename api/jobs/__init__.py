"""`/jobs`: submit, read, wait for, list, cancel and repeat jobs; their events and files."""
