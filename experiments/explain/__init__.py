"""Whether attention weights explain what a classifier answers: a study and a page."""
