"""Base classes and sums that several encodings share; no encoding is here."""
