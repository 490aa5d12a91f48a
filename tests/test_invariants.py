"""Whatever people do, in whatever order: posts, audit and notifications always tell the same story."""

from tests.company import Company, work
from tests.shared_app import SharedApp


def test_audit_and_notifications_agree_whatever_people_do(shared_app: SharedApp) -> None:
    work(Company, shared_app, companies=6)
