"""All searches for candidate findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .labels import confident_errors, suspected_labels
from .regions import region_suspects

if TYPE_CHECKING:
    from ...findings.finding import Finding
    from .image_table import ImageTable

SEARCH_VERSION = 1
"""Changes with the searches and their thresholds."""
SEARCHES = (region_suspects, confident_errors, suspected_labels)


def find_suspects(table: ImageTable) -> list[Finding]:
    """Return the candidates of all searches, which find nothing where there is too little data."""
    return [finding for search in SEARCHES for finding in search(table)]
