"""The table of the audit, which is in a file of its own beside the database.

Why a file of its own: each commit to the database makes every kept answer count no more (answers.py). The triggers
stand in the way of accidents; that nobody with the file in his hands has changed it, the chain of hashes shows.

A released statement here never changes. Times are microseconds since 1970.
"""

ENTRIES = (
    """
    CREATE TABLE entries (
        sequence INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        from_time INTEGER NOT NULL,
        kind TEXT NOT NULL,
        body BLOB NOT NULL,
        hash BLOB NOT NULL
    )
    """,
    "CREATE INDEX entries_by_time ON entries (time)",
    # Most entries are releases.
    "CREATE INDEX entries_by_kind ON entries (kind, sequence) WHERE kind <> 'release'",
    """
    CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries of the audit are appended only'); END
    """,
    """
    CREATE TRIGGER entries_are_not_removed BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries of the audit are appended only'); END
    """,
    # REPLACE would remove without asking the trigger above.
    """
    CREATE TRIGGER entries_follow_one_another BEFORE INSERT ON entries
    WHEN NEW.sequence IS NOT (SELECT COALESCE(MAX(sequence), 0) + 1 FROM entries)
    BEGIN SELECT RAISE(ABORT, 'entries of the audit are appended only'); END
    """,
)

# What was archived may be removed; nothing else. `sequence` and `hash` are those of the last entry that was removed.
BEGINNING = (
    """
    CREATE TABLE beginning (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        sequence INTEGER NOT NULL,
        hash BLOB NOT NULL,
        archived_sequence INTEGER NOT NULL,
        is_archive INTEGER NOT NULL
    )
    """,
    "INSERT INTO beginning VALUES (1, 0, zeroblob(32), 0, 0)",
    "DROP TRIGGER entries_are_not_removed",
    """
    CREATE TRIGGER entries_are_not_removed BEFORE DELETE ON entries
    WHEN OLD.sequence > (SELECT archived_sequence FROM beginning)
    BEGIN SELECT RAISE(ABORT, 'entries of the audit are removed when they are archived'); END
    """,
    "DROP TRIGGER entries_follow_one_another",
    """
    CREATE TRIGGER entries_follow_one_another BEFORE INSERT ON entries
    WHEN NEW.sequence IS NOT COALESCE((SELECT MAX(sequence) FROM entries), (SELECT sequence FROM beginning)) + 1
    BEGIN SELECT RAISE(ABORT, 'entries of the audit are appended only'); END
    """,
)
