"""The forms of a report: page, workbook, and the texts and values in them."""
