"""What the processes of one machine know of each other."""

import subprocess
import sys
from pathlib import Path

from kit.processes import Presence
from tests import missing
from tests.server import ROOT

ENTER = (
    "import sys, pathlib, kit.processes as p; p.Presence(pathlib.Path(sys.argv[1])).enter(); print(flush=True); input()"
)


def test_another_process_is_seen_until_it_ends_in_whatever_way(tmp_path: Path) -> None:
    missing.require_linux()
    presence = Presence(tmp_path / "lock")
    presence.enter()
    alone = presence.has_others()
    command = [sys.executable, "-c", ENTER, str(presence.path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: S603
        assert other.stdout
        other.stdout.readline()
        seen = presence.has_others(), presence.has_others()
        other.kill()
    alone_again = presence.has_others()
    presence.leave()

    assert (alone, seen, alone_again) == (False, (True, True), False)


def test_where_there_is_no_lock_it_counts_on_others(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "gone" / "lock")
    presence.enter()

    assert presence.has_others()
