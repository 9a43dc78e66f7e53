"""What several tests do in Cytomine's own web interface."""

from __future__ import annotations

from collections.abc import Iterable

from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as TooLate

from tests.support.person import wait


def open_projects(page: Page, stack: str, names: Iterable[str]) -> None:
    """Open the list of projects, anew until these are in it: no login waits until a member is in the projects.

    Args:
        page: of somebody who is logged in at the hub.
        stack: the stack's address.
        names: the projects.
    """
    wanted = list(names)

    def there() -> bool:
        page.goto(f"{stack}/#/projects")
        try:
            for name in wanted:
                # A link: the filters above the list offer ontologies of the same names.
                page.get_by_role("link", name=name, exact=True).first.wait_for(timeout=20_000)
        except TooLate:
            # The same address again is no new page.
            page.reload()
            return False
        return True

    wait(there, lambda: f"{', '.join(wanted)} in the list of projects at {page.url}", 60)
