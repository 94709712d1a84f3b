"""Exported models: other run times execute what :mod:`solov2.export` has written."""
