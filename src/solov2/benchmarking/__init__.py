"""Where the time of a prediction goes, and what a model reaches of what the machine can do."""
