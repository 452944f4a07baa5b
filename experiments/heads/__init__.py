"""What the heads of finished runs do: a page, tables and JSON."""
