"""Write a document as a page or a PDF."""
