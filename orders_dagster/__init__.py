"""Keeps a warehouse in step with the orders of an e-commerce API. Importing it does nothing."""
