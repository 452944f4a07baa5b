"""Why scores are divided by sqrt(d): measurements and a figure."""
