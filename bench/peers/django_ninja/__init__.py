"""Django with django-ninja on SQLite in WAL mode, with Django's usual middleware for an API, under gunicorn.

It has no audit, no notifications, no revocation of sessions, no idempotency keys, no strict JSON and no limits.
"""
