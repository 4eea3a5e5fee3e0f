"""The light curves of a dataset, as a HATS catalog of objects."""
