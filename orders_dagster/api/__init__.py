"""Talking to the API: sessions, tokens and pages. Knows nothing of tables or of Dagster."""
