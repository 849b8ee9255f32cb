"""The callbacks family: tells the end of a job to whoever asked for it."""
