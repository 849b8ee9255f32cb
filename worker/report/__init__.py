"""The report family: datasets as pages, workbooks and documents."""
