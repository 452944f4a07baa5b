"""What the layers of finished runs know: probes, a table, a figure."""
