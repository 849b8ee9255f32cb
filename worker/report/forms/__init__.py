"""The forms of a report besides its page."""
