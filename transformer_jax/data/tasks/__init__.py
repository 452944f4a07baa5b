"""Tasks, one file each, in folders by kind.

Save a new one in the folder of its kind, or name it as `module:Class(argument=1)`.
"""
