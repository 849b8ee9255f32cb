"""What a report consists of before it has a form: sections, tables, figures, texts, and values as people write them."""
