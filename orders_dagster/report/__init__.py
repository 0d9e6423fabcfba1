"""The check report: how the orders are, on one page, from what Dagster has on record."""
