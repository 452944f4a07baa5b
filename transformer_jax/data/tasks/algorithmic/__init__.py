"""Algorithmic tasks, one file each, generated on the device from a key."""
