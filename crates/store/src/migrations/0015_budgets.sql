-- How much may be spent on models in each period, on a calendar in UTC: by a tenant with all its environments (`owner` is the
-- tenant) or by one environment (`owner` is that). `unit` is tokens, or micro: millionths of the operator's currency.
CREATE TABLE budgets (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    env TEXT REFERENCES environments (id) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    unit TEXT NOT NULL,
    period TEXT NOT NULL,
    setter TEXT NOT NULL,
    most BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    UNIQUE (owner, unit, period, setter)
);
CREATE INDEX budgets_of_tenant ON budgets (tenant, id);

-- What each has spent in each period, whatever its budgets were meanwhile, and what is set aside for calls under way. These
-- and the following outlive what they are of: they are what is billed.
CREATE TABLE model_spending (
    owner TEXT NOT NULL,
    period TEXT NOT NULL,
    begins BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    tokens_aside BIGINT NOT NULL,
    micro BIGINT NOT NULL,
    micro_aside BIGINT NOT NULL,
    PRIMARY KEY (owner, period, begins)
);

-- Budgets of which most is spent in a period, where that has been said.
CREATE TABLE budget_warnings (
    budget TEXT NOT NULL,
    begins BIGINT NOT NULL,
    PRIMARY KEY (budget, begins)
);

-- What is set aside for each request to a model, until it is over or whoever makes it has not said for too long that it is
-- still under way. `micro` is null where the model had no price.
CREATE TABLE reservations (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    env TEXT NOT NULL,
    model TEXT NOT NULL,
    node TEXT NOT NULL,
    at BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    prompt BIGINT NOT NULL,
    completion BIGINT NOT NULL,
    micro BIGINT
);
CREATE INDEX reservations_by_end ON reservations (ends);

-- What each request to a model has used. `tokens` and `micro` are what the environment is charged with; what a provider has
-- used above what was set aside is the platform's own. `estimated`: the provider has not said, and all that was set aside counts.
CREATE TABLE model_calls (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    env TEXT NOT NULL,
    model TEXT NOT NULL,
    at BIGINT NOT NULL,
    prompt BIGINT NOT NULL,
    cached BIGINT NOT NULL,
    completion BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    unattributed_tokens BIGINT NOT NULL,
    micro BIGINT,
    unattributed_micro BIGINT NOT NULL,
    estimated BIGINT NOT NULL
);
CREATE INDEX model_calls_of_tenant ON model_calls (tenant, at);

-- What a million tokens of a model cost from a time on.
CREATE TABLE prices (
    model TEXT NOT NULL,
    since BIGINT NOT NULL,
    input BIGINT NOT NULL,
    cached_input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    PRIMARY KEY (model, since)
);

INSERT INTO model_spending (owner, period, begins, calls, tokens, tokens_aside, micro, micro_aside)
SELECT env, 'day', day * 86400000000, calls, prompt + completion, 0, 0, 0 FROM model_usage;
DROP TABLE model_usage;
