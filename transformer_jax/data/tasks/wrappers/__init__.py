"""Tasks that pose an algorithmic task in another form: pairs, prefixes, blanks."""
