"""Alerts and the predictions of FinkAI: as one dataset."""
