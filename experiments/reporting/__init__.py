"""From finished folders to pages: comparisons, statistics, tables, figures."""
