"""A real retailer's orders: every invoice of a year, and the figures published about them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from orders_dagster_tests.conftest import RETAILER
from orders_dagster_tests.world import Project, Shop


@pytest.mark.skipif(not RETAILER.exists(), reason=f"{RETAILER.name} is not beside this checkout")
def test_the_published_figures_of_a_real_retailer_come_out_exactly(
    project: Project, shop: Callable[..., Shop]
) -> None:
    """Online Retail (D. Chen, UCI Machine Learning Repository, 2015): finance's own numbers."""
    shop(orders_from=str(RETAILER))

    result = project.synchronise()
    again = project.synchronise()

    assert (result.new, result.rejected, again.new, again.updated) == (25_900, 0, 0, 0)
    ((orders, customers, countries, cancelled, anonymous),) = project.query(
        """
        SELECT count(*), count(DISTINCT customer_id), count(DISTINCT country),
               count(*) FILTER (status = 'cancelled'), count(*) FILTER (customer_id IS NULL)
        FROM ecommerce.orders
        """
    )
    assert (orders, customers, countries) == (25_900, 4_372, 38)
    assert (cancelled, anonymous) == (3_836, 3_710)
    ((items, revenue),) = project.query(
        "SELECT count(*), sum(quantity * unit_price) FROM ecommerce.orders__items"
    )
    assert items == 541_909
    assert revenue == Decimal("9747747.934")
