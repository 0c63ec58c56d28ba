"""The tables of records, which are in a file of their own beside the database.

Why a file of their own: each commit to the database makes every kept answer count no more (answers.py), and a writer
of records must never make an administrator's change wait. `user_id` and `provider_id` are no foreign keys for that
reason, and because records outlive both.

A released statement here never changes. Times are microseconds since 1970. `start_day` counts days since 1970 in UTC.
"""

RECORDS = (
    """
    CREATE TABLE records_of (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        database_id TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE interceptions (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        resolution_id TEXT NOT NULL,
        service_id TEXT NOT NULL,
        bridge_instance_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        provider_id TEXT NOT NULL,
        provider_name TEXT NOT NULL,
        provider_type TEXT NOT NULL,
        source TEXT NOT NULL,
        credential_id TEXT NOT NULL,
        operation TEXT NOT NULL,
        model TEXT NOT NULL,
        upstream_model TEXT NOT NULL,
        client TEXT NOT NULL,
        user_agent TEXT NOT NULL,
        session_id TEXT NOT NULL,
        thread_parent_id TEXT NOT NULL,
        thread_root_id TEXT NOT NULL,
        correlating_tool_call_id TEXT NOT NULL,
        streaming INTEGER NOT NULL,
        start_time INTEGER NOT NULL,
        end_time INTEGER,
        outcome TEXT NOT NULL,
        error_category TEXT NOT NULL,
        error_reason TEXT NOT NULL,
        error_message TEXT NOT NULL,
        http_status INTEGER NOT NULL,
        upstream_request_id TEXT NOT NULL,
        duration_micros INTEGER NOT NULL,
        first_byte_micros INTEGER
    )
    """,
    # Lists are filtered by the further columns in the index alone: rows of one user lie scattered over the whole file.
    "CREATE INDEX interceptions_by_time ON interceptions"
    " (start_time, number, provider_name, provider_type, model, client)",
    "CREATE INDEX interceptions_by_user ON interceptions"
    " (user_id, start_time, number, provider_name, provider_type, model, client)",
    "CREATE INDEX interceptions_by_session ON interceptions (session_id, start_time)",
    # Few at any time: most end before they are written.
    "CREATE INDEX interceptions_open ON interceptions (bridge_instance_id) WHERE end_time IS NULL",
    "CREATE INDEX interceptions_of_threads ON interceptions (thread_root_id, start_time)"
    " WHERE thread_root_id <> '' AND thread_root_id <> id",
    """
    CREATE TABLE token_usages (
        interception_id TEXT NOT NULL,
        id TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        response_id TEXT NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_input_tokens INTEGER NOT NULL,
        cache_write_input_tokens INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        partial INTEGER NOT NULL,
        cost_micros INTEGER,
        PRIMARY KEY (interception_id, id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE prompts (
        interception_id TEXT NOT NULL,
        id TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        response_id TEXT NOT NULL,
        text TEXT NOT NULL,
        text_bytes INTEGER NOT NULL,
        PRIMARY KEY (interception_id, id)
    )
    """,
    """
    CREATE TABLE tool_calls (
        interception_id TEXT NOT NULL,
        id TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        response_id TEXT NOT NULL,
        tool_call_id TEXT NOT NULL,
        item_id TEXT NOT NULL,
        tool TEXT NOT NULL,
        input TEXT NOT NULL,
        input_bytes INTEGER NOT NULL,
        server_url TEXT NOT NULL,
        injected INTEGER NOT NULL,
        invocation_error TEXT NOT NULL,
        PRIMARY KEY (interception_id, id)
    )
    """,
    "CREATE INDEX tool_calls_by_call ON tool_calls (tool_call_id, create_time)",
    """
    CREATE TABLE model_thoughts (
        interception_id TEXT NOT NULL,
        id TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        response_id TEXT NOT NULL,
        content TEXT NOT NULL,
        content_bytes INTEGER NOT NULL,
        source TEXT NOT NULL,
        PRIMARY KEY (interception_id, id)
    )
    """,
    """
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY,
        user_id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        providers TEXT NOT NULL,
        provider_types TEXT NOT NULL,
        models TEXT NOT NULL,
        client TEXT NOT NULL,
        start_time INTEGER NOT NULL,
        last_active_time INTEGER NOT NULL,
        interceptions INTEGER NOT NULL,
        threads INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_input_tokens INTEGER NOT NULL,
        cache_write_input_tokens INTEGER NOT NULL,
        cost_micros INTEGER NOT NULL,
        unpriced_token_usages INTEGER NOT NULL,
        last_prompt TEXT NOT NULL,
        last_prompt_time INTEGER NOT NULL,
        UNIQUE (session_id, user_id)
    )
    """,
    "CREATE INDEX sessions_by_time ON sessions (last_active_time)",
    "CREATE INDEX sessions_by_user ON sessions (user_id, last_active_time)",
    # The rows of the user '' are the sums of all users: without them, every question that names no user would add the
    # rows of each of them up.
    """
    CREATE TABLE usage_days (
        start_day INTEGER NOT NULL,
        user_id TEXT NOT NULL,
        provider_name TEXT NOT NULL,
        model TEXT NOT NULL,
        client TEXT NOT NULL,
        interceptions INTEGER NOT NULL,
        token_usages INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_input_tokens INTEGER NOT NULL,
        cache_write_input_tokens INTEGER NOT NULL,
        cost_micros INTEGER NOT NULL,
        unpriced_token_usages INTEGER NOT NULL,
        PRIMARY KEY (start_day, user_id, provider_name, model, client)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX usage_days_by_user ON usage_days (user_id, start_day)",
    """
    CREATE TABLE bridge_instances (
        service_id TEXT NOT NULL,
        id TEXT NOT NULL,
        seen_time INTEGER NOT NULL,
        PRIMARY KEY (service_id, id)
    ) WITHOUT ROWID
    """,
)

# Bridges that watch what administrators change (watchers.py). They come and go with their processes.
WATCHERS = (
    """
    CREATE TABLE watchers (
        id TEXT PRIMARY KEY NOT NULL,
        process_id TEXT NOT NULL,
        service_id TEXT NOT NULL,
        bridge_instance_id TEXT NOT NULL,
        revision INTEGER NOT NULL,
        alive_time INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)

# Calls to upstreams that were refused before the answer that counts.
ATTEMPTS = (
    """
    CREATE TABLE attempts (
        interception_id TEXT NOT NULL,
        id TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        resolution_id TEXT NOT NULL,
        provider_id TEXT NOT NULL,
        provider_name TEXT NOT NULL,
        source TEXT NOT NULL,
        credential_id TEXT NOT NULL,
        http_status INTEGER NOT NULL,
        error_category TEXT NOT NULL,
        error_reason TEXT NOT NULL,
        upstream_request_id TEXT NOT NULL,
        duration_micros INTEGER NOT NULL,
        PRIMARY KEY (interception_id, id)
    )
    """,
)

# What a bridge says of its breakers, as JSON; empty for nothing.
BREAKERS = ("ALTER TABLE bridge_instances ADD COLUMN breakers TEXT NOT NULL DEFAULT ''",)

# An interception that is the only one of its session stands for it: such a session has no row in sessions. Lists of
# sessions find these in the indexes by time and by user, and no index by sessions has to have them.
SESSIONS_OF_ONE = (
    "ALTER TABLE interceptions ADD COLUMN is_session INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX interceptions_by_time",
    "DROP INDEX interceptions_by_user",
    "DROP INDEX interceptions_by_session",
    "CREATE INDEX interceptions_by_time ON interceptions"
    " (start_time, number, provider_name, provider_type, model, client, is_session)",
    "CREATE INDEX interceptions_by_user ON interceptions"
    " (user_id, start_time, number, provider_name, provider_type, model, client, is_session)",
    "CREATE INDEX interceptions_by_session ON interceptions (session_id, start_time)"
    " WHERE is_session = 0 AND session_id <> ''",
)

# The token usages and the prompts of usual interceptions, whose numbers they have (usual_facts.py). The answer that a
# prompt got is that of the usage.
USUAL_FACTS = (
    """
    CREATE TABLE usual_token_usages (
        number INTEGER PRIMARY KEY,
        create_time INTEGER NOT NULL,
        response_id TEXT NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_input_tokens INTEGER NOT NULL,
        cache_write_input_tokens INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        partial INTEGER NOT NULL,
        cost_micros INTEGER
    )
    """,
    """
    CREATE TABLE usual_prompts (
        number INTEGER PRIMARY KEY,
        create_time INTEGER NOT NULL,
        text TEXT NOT NULL,
        text_bytes INTEGER NOT NULL
    )
    """,
)

# What answers a tool call that nobody has made yet, as far as is known: few, as most have their parents when they come.
WITHOUT_PARENT = (
    "CREATE INDEX interceptions_without_parent ON interceptions (user_id, correlating_tool_call_id, id)"
    " WHERE correlating_tool_call_id <> '' AND thread_root_id = id",
)

# Up to when retention has removed everything; empty where it never has.
PURGED = ("ALTER TABLE records_of ADD COLUMN purged_time INTEGER",)

# More was to come of it. Of what was stored before, nobody knows: 0.
PARTIAL_CALLS = (
    "ALTER TABLE tool_calls ADD COLUMN partial INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE model_thoughts ADD COLUMN partial INTEGER NOT NULL DEFAULT 0",
)
