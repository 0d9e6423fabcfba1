"""`orders-dagster doctor`: does the API, and does the warehouse, keep to what the pipeline relies on?"""
