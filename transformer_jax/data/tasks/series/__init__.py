"""Numbers in time: forecasting, and classification of signals."""
