"""Training, on Lightning: the only part of the package that imports it."""
