"""The tables, as the first migration makes them, and what later ones add.

A released statement here never changes: what comes later is a migration of its own. `provider_id` of user_keys is no
foreign key, because providers from the environment have ids too and no row.
"""

INITIAL = (
    """
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        database_id TEXT NOT NULL,
        deployment_key_id TEXT NOT NULL,
        deployment_nonce BLOB NOT NULL,
        deployment_ciphertext BLOB NOT NULL,
        create_time INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE change_log (
        revision INTEGER PRIMARY KEY,
        change_time INTEGER NOT NULL,
        kind TEXT NOT NULL,
        resource TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        name TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE users (
        id TEXT PRIMARY KEY NOT NULL,
        username TEXT NOT NULL,
        username_key TEXT NOT NULL UNIQUE,
        admin INTEGER NOT NULL,
        suspended INTEGER NOT NULL,
        version INTEGER NOT NULL,
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY NOT NULL,
        user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        token_hash BLOB NOT NULL UNIQUE,
        create_time INTEGER NOT NULL,
        expire_time INTEGER,
        revoke_time INTEGER
    )
    """,
    "CREATE INDEX tokens_by_user ON tokens (user_id, id)",
    """
    CREATE TABLE services (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL,
        token_hash BLOB NOT NULL UNIQUE,
        may_act_for_users INTEGER NOT NULL,
        act_for_providers TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        rotate_time INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE providers (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL UNIQUE,
        type TEXT NOT NULL,
        display_name TEXT NOT NULL,
        base_url TEXT NOT NULL,
        enabled INTEGER NOT NULL,
        central_key_enabled INTEGER NOT NULL,
        user_keys_allowed INTEGER NOT NULL,
        central_key_fallback INTEGER NOT NULL,
        bedrock_region TEXT,
        bedrock_role_arn TEXT,
        bedrock_external_id TEXT,
        bedrock_model TEXT,
        bedrock_small_fast_model TEXT,
        send_actor_headers INTEGER,
        version INTEGER NOT NULL,
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE central_keys (
        credential_id TEXT PRIMARY KEY NOT NULL,
        provider_id TEXT NOT NULL REFERENCES providers (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        kind TEXT NOT NULL,
        key_id TEXT NOT NULL,
        nonce BLOB NOT NULL,
        ciphertext BLOB NOT NULL,
        create_time INTEGER NOT NULL,
        UNIQUE (provider_id, position)
    )
    """,
    """
    CREATE TABLE user_keys (
        user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        provider_id TEXT NOT NULL,
        credential_id TEXT NOT NULL UNIQUE,
        key_id TEXT NOT NULL,
        nonce BLOB NOT NULL,
        ciphertext BLOB NOT NULL,
        update_time INTEGER NOT NULL,
        PRIMARY KEY (user_id, provider_id)
    )
    """,
    "CREATE INDEX user_keys_by_provider ON user_keys (provider_id)",
)

# Prices are micro-dollars per million tokens; NULL is not known. `provider_id` is no foreign key, as in user_keys.
MODELS = (
    """
    CREATE TABLE models (
        id TEXT PRIMARY KEY NOT NULL,
        provider_id TEXT NOT NULL,
        name TEXT NOT NULL,
        input_price_micros INTEGER,
        output_price_micros INTEGER,
        cache_read_price_micros INTEGER,
        cache_write_price_micros INTEGER,
        version INTEGER NOT NULL,
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        UNIQUE (provider_id, name)
    )
    """,
)

# NULL is as the bridge is set, and no fallback provider.
PROVIDER_TIMEOUTS = tuple(
    f"ALTER TABLE providers ADD COLUMN {column}"
    for column in (
        "connect_timeout_micros INTEGER",
        "first_byte_timeout_micros INTEGER",
        "idle_timeout_micros INTEGER",
        "fallback_provider TEXT",
    )
)

# NULL for providers that do not reach AWS. `bedrock_models` is a JSON object, `bedrock_model_rules` a JSON array.
BEDROCK_OPTIONS = tuple(
    f"ALTER TABLE providers ADD COLUMN {column}"
    for column in (
        "bedrock_models TEXT",
        "bedrock_model_rules TEXT",
        "bedrock_role_duration_seconds INTEGER",
        "bedrock_session_policy TEXT",
        "bedrock_protocol TEXT",
        "bedrock_set_source_identity INTEGER",
        "bedrock_session_tags INTEGER",
    )
)

# A service is known by the names of its certificates, by its token, and for a while by the token before that one.
# `has_token` 0: nobody knows what the hash in token_hash is of.
SERVICE_IDENTITIES = (
    "ALTER TABLE services ADD COLUMN has_token INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE services ADD COLUMN old_token_hash BLOB",
    "ALTER TABLE services ADD COLUMN old_token_expire_time INTEGER",
    "CREATE UNIQUE INDEX services_by_old_token ON services (old_token_hash)",
    """
    CREATE TABLE service_certificates (
        san TEXT PRIMARY KEY NOT NULL,
        service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX service_certificates_by_service ON service_certificates (service_id)",
)

# What bridges told of the keys of pools; no change of administrative state, so no revision. Neither id of the key is a
# foreign key, because keys from the environment have no row.
KEY_COOLDOWNS = (
    """
    CREATE TABLE key_cooldowns (
        provider_id TEXT NOT NULL,
        credential_id TEXT NOT NULL,
        service_id TEXT NOT NULL,
        instance_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        since_time INTEGER NOT NULL,
        until_time INTEGER NOT NULL,
        strikes INTEGER NOT NULL,
        error TEXT NOT NULL,
        http_status INTEGER NOT NULL,
        PRIMARY KEY (provider_id, credential_id, service_id, instance_id)
    ) WITHOUT ROWID
    """,
)

# `sealing_key_id` is the key that seals from now on, for all processes on this database. `sealing_keys` has each key
# that ever did; `fingerprint` tells two keys of one id apart, `wrapped` is the key itself, encrypted by what `source`
# names, NULL where it is kept elsewhere.
SEALING_KEYS = (
    "ALTER TABLE meta ADD COLUMN sealing_key_id TEXT",
    """
    CREATE TABLE sealing_keys (
        id TEXT PRIMARY KEY NOT NULL,
        source TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        wrapped BLOB,
        create_time INTEGER NOT NULL,
        retire_time INTEGER
    ) WITHOUT ROWID
    """,
    "CREATE INDEX central_keys_by_sealing_key ON central_keys (key_id, credential_id)",
    "CREATE INDEX user_keys_by_sealing_key ON user_keys (key_id, credential_id)",
)

# An end that the chain of the audit had, for when its file is gone.
AUDIT_HEAD = (
    """
    CREATE TABLE audit_head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        sequence INTEGER NOT NULL,
        hash BLOB NOT NULL
    )
    """,
)
