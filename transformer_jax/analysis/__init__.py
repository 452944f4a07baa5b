"""Analysis of trained models: what heads do, what layers know."""
