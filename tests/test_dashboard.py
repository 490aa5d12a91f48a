"""The dashboard."""

from tests.routes import Exceptions

SWEEP = Exceptions(costs={"GET /dashboard": (1, 5)})
