"""The callbacks family: sends the outcome of a job to its callback_url."""
