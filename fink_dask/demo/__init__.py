"""Made-up alerts with the schema shape of Fink's, so that a demo, a test or a benchmark needs no survey."""
