"""Telling a person what is wrong, once. What is plain here knows nothing of Dagster or of orders."""
