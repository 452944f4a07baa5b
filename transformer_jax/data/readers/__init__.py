"""Readers of files and data sets: labelled text, bitext, CoNLL, images, TFDS."""
