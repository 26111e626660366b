-- The whole store, in PostgreSQL's type words; store/mod.rs turns BIGINT and BYTEA into SQLite's and adds STRICT.
-- Times are Unix milliseconds. What ends in _hash is SHA-256. Sealed columns are marked.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- The processes that work on this database, and by which mark each knows it again.
CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    mark TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);

-- What the other processes must hear of; swept after a while.
CREATE TABLE changes (
    seq BIGSERIAL PRIMARY KEY,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    object TEXT NOT NULL
);
CREATE INDEX changes_at ON changes (at);

CREATE TABLE data_keys (
    id BIGINT PRIMARY KEY,
    root_key TEXT NOT NULL,
    wrapped BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    hint TEXT NOT NULL,
    key_hash BYTEA NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    limits TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT
);
CREATE UNIQUE INDEX api_keys_live_name ON api_keys (tenant, name) WHERE revoked_at IS NULL;

-- Definitions: every version of the user's own, and of the built-in ones those that integrations were made with.
CREATE TABLE providers (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    version TEXT NOT NULL,      -- of one's own its number; of a built-in one its content's hash
    number BIGINT NOT NULL,     -- of a built-in one 0
    definition TEXT,            -- NULL: removed; its number isn't given again
    bases TEXT NOT NULL,        -- what it extended when it was added, as JSON
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id, version)
);

CREATE TABLE integrations (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    provider TEXT NOT NULL,
    provider_version TEXT NOT NULL,
    method TEXT NOT NULL,
    client_id TEXT NOT NULL,
    secrets BYTEA,              -- sealed: client secret, private keys and secret variables
    client_secret_expires_at BIGINT,
    scopes TEXT NOT NULL,
    audience TEXT,
    header_prefix TEXT,
    client_auth TEXT,
    client_certificate TEXT,
    grant_type TEXT,
    token_key TEXT,
    content_type TEXT,
    limits TEXT NOT NULL DEFAULT '{}', -- of each connection's calls, as JSON
    description TEXT NOT NULL DEFAULT '',
    extra TEXT NOT NULL DEFAULT '{}', -- parameters of requests beside the definition's, as JSON
    renewal TEXT NOT NULL DEFAULT '{}', -- how connections are renewed, as JSON
    variables TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (tenant, name)
);

CREATE TABLE connections (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    integration TEXT NOT NULL REFERENCES integrations (id),
    owner TEXT,
    username TEXT,
    tags TEXT NOT NULL,
    variables TEXT NOT NULL,
    secrets BYTEA,              -- sealed: password and secret variables
    state TEXT NOT NULL,
    failure TEXT,               -- why it is failing, as JSON
    token_set BYTEA,            -- sealed under generation
    previous_token_set BYTEA,   -- sealed under generation - 1
    generation BIGINT NOT NULL,
    token_expires_at BIGINT,
    scope TEXT,
    account TEXT,
    endpoint TEXT NOT NULL DEFAULT '', -- of the token endpoint, without query: due rows are taken endpoint by endpoint
    due_at BIGINT,
    lost_at BIGINT,             -- when a request with this generation's refresh token was sent whose outcome nobody knows
    dies_at BIGINT,             -- when the refresh token dies
    warned_at BIGINT,
    attempt TEXT,
    attempt_owner TEXT,
    attempt_deadline BIGINT,
    failures_setup BIGINT NOT NULL,
    failures_grant BIGINT NOT NULL,
    failures_transient BIGINT NOT NULL,
    retry_at BIGINT,
    connected_at BIGINT,
    renewed_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (tenant, name)
);
CREATE INDEX connections_due_at ON connections (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX connections_due ON connections (endpoint, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX connections_claims ON connections (attempt_deadline) WHERE attempt_deadline IS NOT NULL;
CREATE INDEX connections_dies ON connections (dies_at) WHERE dies_at IS NOT NULL;
CREATE INDEX connections_integration ON connections (integration, owner);

-- Named APIs; each through one connection, or through each caller's own under an integration.
CREATE TABLE data_sources (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    base_url TEXT,              -- NULL: the connection's own
    connection TEXT REFERENCES connections (id),
    integration TEXT REFERENCES integrations (id),
    secrets BYTEA,              -- sealed: values of secret variables
    spec TEXT NOT NULL,         -- headers, query, variables, health, requests, allow, as JSON
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (tenant, name)
);
CREATE INDEX data_sources_connection ON data_sources (connection) WHERE connection IS NOT NULL;
CREATE INDEX data_sources_integration ON data_sources (integration) WHERE integration IS NOT NULL;

CREATE TABLE connect_sessions (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    token_hash BYTEA NOT NULL UNIQUE,
    integration TEXT NOT NULL,
    connection TEXT NOT NULL,
    owner TEXT,
    return_url TEXT,
    direct BIGINT NOT NULL,
    made_connection BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);

CREATE TABLE consents (
    state_hash BYTEA PRIMARY KEY,
    tenant TEXT NOT NULL,
    connection TEXT NOT NULL,
    integration TEXT NOT NULL,
    session TEXT NOT NULL,
    sealed BYTEA NOT NULL,      -- sealed: verifier, nonce, what the person typed
    issuer TEXT,
    issuer_required BIGINT NOT NULL,
    redirect_uri TEXT NOT NULL,
    browser_hash BYTEA NOT NULL,
    answer BYTEA,               -- sealed: the body, where the provider has it posted
    expires_at BIGINT NOT NULL
);

-- A person consents on another device (RFC 8628).
CREATE TABLE device_grants (
    connection TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    integration TEXT NOT NULL,
    session TEXT,               -- whose page shows the code; NULL where the API asked
    browser_hash BYTEA,
    sealed BYTEA NOT NULL,      -- sealed: device code, what the person typed
    user_code TEXT NOT NULL,
    verification_uri TEXT NOT NULL,
    verification_uri_complete TEXT,
    interval_ms BIGINT NOT NULL,
    ask_at BIGINT NOT NULL,     -- by the database's clock; who asks moves it first
    expires_at BIGINT NOT NULL
);
CREATE INDEX device_grants_ask_at ON device_grants (ask_at);

CREATE TABLE pending_grants (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    connection TEXT NOT NULL,
    session TEXT NOT NULL,
    code_hash BYTEA UNIQUE,
    browser_hash BYTEA NOT NULL,
    sealed BYTEA NOT NULL,      -- sealed: token set, what the person typed
    account TEXT,
    expires_at BIGINT NOT NULL
);

-- A connection's history, in plain words.
CREATE TABLE events (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    connection TEXT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX events_connection ON events (connection, id);

-- The audit, many records a row.
CREATE TABLE audit (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,     -- in the order in which they can be read
    batch TEXT NOT NULL,        -- made before it is written: written twice, it is there once
    from_at BIGINT NOT NULL,
    to_at BIGINT NOT NULL,
    count BIGINT NOT NULL,
    records BYTEA NOT NULL,
    PRIMARY KEY (tenant, number),
    UNIQUE (tenant, batch)
);
CREATE INDEX audit_to_at ON audit (tenant, to_at, number);

CREATE TABLE audit_heads (
    tenant TEXT PRIMARY KEY,
    last BIGINT NOT NULL        -- the newest segment's number
);

CREATE TABLE usage (
    hour BIGINT NOT NULL,       -- since 1970
    tenant TEXT NOT NULL,
    connection TEXT NOT NULL,
    caller TEXT NOT NULL,       -- a key's id; empty: Keyholder itself
    source TEXT NOT NULL,       -- empty: by no data source
    hand_outs BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    renewals BIGINT NOT NULL,
    failed_renewals BIGINT NOT NULL,
    client_errors BIGINT NOT NULL,
    server_errors BIGINT NOT NULL,
    own_errors BIGINT NOT NULL,
    sent BIGINT NOT NULL,
    received BIGINT NOT NULL,
    -- how many calls took up to so many milliseconds, and no less than half of it
    took_1 BIGINT NOT NULL,
    took_2 BIGINT NOT NULL,
    took_4 BIGINT NOT NULL,
    took_8 BIGINT NOT NULL,
    took_16 BIGINT NOT NULL,
    took_32 BIGINT NOT NULL,
    took_64 BIGINT NOT NULL,
    took_128 BIGINT NOT NULL,
    took_256 BIGINT NOT NULL,
    took_512 BIGINT NOT NULL,
    took_1024 BIGINT NOT NULL,
    took_2048 BIGINT NOT NULL,
    took_4096 BIGINT NOT NULL,
    took_8192 BIGINT NOT NULL,
    took_16384 BIGINT NOT NULL,
    took_longer BIGINT NOT NULL,
    PRIMARY KEY (hour, tenant, connection, caller, source)
);

CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    caller TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_hash BYTEA NOT NULL,
    reply BYTEA,                -- sealed: status and body; empty while the first request runs
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, caller, idempotency_key)
);

-- People who use the console. Their ids are of the keys' kind: whoever acts has one kind of name in audit and usage.
CREATE TABLE operators (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    password TEXT,              -- a hash with its scheme, cost and salt
    theme TEXT,
    seen_at BIGINT,             -- a minute behind at most
    created_at BIGINT NOT NULL,
    UNIQUE (tenant, name)
);

-- Wrong passwords, by a number that the name they came with leads to: of 65,536, so that names nobody has wait as others do, and fill nothing up.
CREATE TABLE sign_in_failures (
    slot BIGINT PRIMARY KEY,
    failures BIGINT NOT NULL,
    last_at BIGINT NOT NULL
);

-- Links by which a person becomes an operator, or chooses a new password; taken away when used.
CREATE TABLE operator_links (
    token_hash BYTEA PRIMARY KEY,
    tenant TEXT NOT NULL,
    operator TEXT NOT NULL,     -- who it is for; somebody new has the id already
    scopes TEXT NOT NULL,       -- of somebody new; none: somebody who is there signs in another way from then on
    first BIGINT NOT NULL,      -- good only while there is no operator
    expires_at BIGINT NOT NULL
);

-- What operators sign in with beside a password, or instead.
CREATE TABLE passkeys (
    operator TEXT NOT NULL REFERENCES operators (id),
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    credential BYTEA NOT NULL,  -- the id that the device gave it
    algorithm BIGINT NOT NULL,  -- as COSE numbers them
    public_key BYTEA NOT NULL,  -- SubjectPublicKeyInfo
    counter BIGINT NOT NULL,    -- goes up with each use; 0: the device doesn't count
    created_at BIGINT NOT NULL,
    used_at BIGINT,
    PRIMARY KEY (operator, name),
    UNIQUE (tenant, credential)
);

-- Questions to browsers for a passkey; taken away with the first answer.
CREATE TABLE passkey_challenges (
    challenge_hash BYTEA PRIMARY KEY,
    purpose TEXT NOT NULL,
    operator TEXT NOT NULL,     -- who was asked; empty: whoever signs in
    expires_at BIGINT NOT NULL
);
CREATE INDEX passkey_challenges_end ON passkey_challenges (expires_at);

CREATE TABLE console_sessions (
    token_hash BYTEA PRIMARY KEY,
    tenant TEXT NOT NULL,
    operator TEXT NOT NULL REFERENCES operators (id),
    said TEXT NOT NULL,         -- what the next page shall say, as JSON
    proved_at BIGINT NOT NULL,  -- when the person last showed who they are
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX console_sessions_operator ON console_sessions (operator);
