"""Make the tables, and Ada, the admin."""

import os

import django
from django.core.management import call_command

if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_ninja.settings"
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)

    from django.contrib.auth.hashers import make_password

    from django_ninja.models import User

    password_hash = make_password(os.environ["BENCH_PASSWORD"])
    User.objects.create(email="ada@example.com", full_name="Ada", password_hash=password_hash, role="admin")
