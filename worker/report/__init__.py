"""The report family: HTML pages, workbooks and PDFs about datasets, and the daily report about the service."""
