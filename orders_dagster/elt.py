"""The one import of `dagster_embedded_elt`, so that moving on to `dagster_dlt` is one line here.

The package re-exports `dagster_dlt` and says so with a deprecation warning on import. The warning is
for us, not for the people who read the logs of a run, so it stops here.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from dagster_embedded_elt.dlt import DagsterDltTranslator, dlt_assets

from dagster_dlt.translator import DltResourceTranslatorData

__all__ = ["DagsterDltTranslator", "DltResourceTranslatorData", "dlt_assets"]
