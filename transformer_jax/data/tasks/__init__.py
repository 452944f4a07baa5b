"""Tasks, one file each, in folders by kind.

Save a new one beside its like, or name your own as `module:Class(argument=1)`.
"""
