"""Made-up alerts with the schemas of Fink's packets, so that no test and no benchmark needs a survey."""
