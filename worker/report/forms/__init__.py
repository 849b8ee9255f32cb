"""The forms of a report: page, workbook and PDF."""
