"""Made-up alerts with schemas shaped like Fink's, so that a demo, a test or a benchmark needs no survey."""
