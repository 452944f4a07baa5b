"""From words to plans: flags, config files, validation, the runs of a sweep."""
