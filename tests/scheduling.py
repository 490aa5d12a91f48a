"""Which tests run beside which, when several processes run them."""

from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs] - its types are in its code

HEAVY = "tests/servers/"  # what loads the machine, or measures how it bears a load; of these only one runs at a time


def is_heavy(node_id: str) -> bool:
    """Whether a test is one of these."""
    return node_id.startswith(HEAVY)


class Scheduling(LoadScopeScheduling):
    """Gives a process one module after the other, and all that are heavy to one.

    pytest-xdist has marks for that, which do not reach it from pytest 9.2 on.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "heavy" if is_heavy(nodeid) else nodeid.partition("::")[0]
