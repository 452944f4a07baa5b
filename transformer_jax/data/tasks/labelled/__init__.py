"""Labelled tasks: classification, tagging, images, sentence pairs."""
