"""Export: a model becomes one file that other run times execute, from bytes to masks."""
