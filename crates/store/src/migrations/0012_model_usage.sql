-- What an environment has asked of the model on one day, counted in days since 1970 in UTC: tokens that were used, and those
-- that are set aside for calls under way.
CREATE TABLE model_usage (
    env TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    day BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    prompt BIGINT NOT NULL,
    completion BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    PRIMARY KEY (env, day)
);
