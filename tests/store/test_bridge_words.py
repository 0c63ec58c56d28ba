"""What bridges say of themselves, as it is kept."""

from credentiald.store import bridge_words
from tests.support.records import empty_records

BRIDGE = ("service", "bridge-1")


def test_a_bridge_was_heard_of_when_it_said_what_is_shown(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        for micros, said in ((5, "closed"), (9, "open"), (7, "told late")):
            bridge_words.tell_breakers(conn, BRIDGE, said, now_micros=micros)
        assert list(bridge_words.breakers_since(conn, since_micros=0)) == [(BRIDGE, 9, "told late")]
