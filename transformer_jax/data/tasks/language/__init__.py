"""Language tasks: language modelling, span corruption, translation."""
