-- What environments have used by the hour, beside calls (usage) and models (model_calls). It outlives them: it is what is billed.
CREATE TABLE metered (
    tenant TEXT NOT NULL,
    env TEXT NOT NULL,
    hour BIGINT NOT NULL,
    meter TEXT NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (tenant, env, hour, meter)
);
CREATE INDEX metered_by_hour ON metered (tenant, hour, env, meter);
CREATE INDEX usage_by_hour ON usage (tenant, hour, env);

-- What was counted together, so that what is written again is not counted again.
CREATE TABLE metered_batches (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL
);
CREATE INDEX metered_batches_by_time ON metered_batches (at);

-- What a meter costs from an hour on, in millionths of the operator's currency.
CREATE TABLE meter_prices (
    meter TEXT NOT NULL,
    since BIGINT NOT NULL,
    micro BIGINT NOT NULL,
    PRIMARY KEY (meter, since)
);
