-- Records lie in segments of a UTC day, which are only appended to, and are dropped whole when they are old.
-- A record's id and its end belong together: a replayed record has both as before.
ALTER TABLE usage RENAME TO usage_before;
ALTER INDEX usage_finished RENAME TO usage_before_finished;
ALTER TABLE usage_before RENAME CONSTRAINT usage_pkey TO usage_before_pkey;

CREATE TABLE usage (
    request TEXT COLLATE "C" NOT NULL,
    finished_at_s DOUBLE PRECISION NOT NULL,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT,
    pool TEXT,
    priority TEXT NOT NULL,
    outcome TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    spilled BIGINT NOT NULL,
    streamed BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    cached_tokens BIGINT,
    completion_tokens BIGINT NOT NULL,
    estimated BIGINT NOT NULL,
    ttft_s DOUBLE PRECISION,
    tpot_s DOUBLE PRECISION,
    duration_s DOUBLE PRECISION NOT NULL,
    cost_nano_usd BIGINT NOT NULL,
    organization TEXT NOT NULL,
    PRIMARY KEY (request, finished_at_s)
) PARTITION BY RANGE (finished_at_s);

CREATE INDEX usage_finished ON usage (finished_at_s);

-- The segment of a day since 1970, made where there is none. Two hosts may ask at once.
CREATE FUNCTION usage_segment(day BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    segment TEXT := 'usage_day_' || replace(day::TEXT, '-', 'm');
BEGIN
    IF to_regclass(segment) IS NULL THEN
        PERFORM pg_advisory_xact_lock(7710003);
        BEGIN
            EXECUTE format('CREATE TABLE %I PARTITION OF usage FOR VALUES FROM (%s) TO (%s)', segment, day * 86400, (day + 1) * 86400);
        EXCEPTION WHEN duplicate_table THEN
            NULL; -- the other host was first: its lock was waited for
        END;
    END IF;
    RETURN day;
END;
$$;

-- Drops the segments that end no later than that; how many.
CREATE FUNCTION usage_drop_segments(before_s DOUBLE PRECISION) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    segment TEXT;
    dropped BIGINT := 0;
BEGIN
    FOR segment IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'usage'::regclass
    LOOP
        IF (replace(substr(segment, 11), 'm', '-')::BIGINT + 1) * 86400 <= before_s THEN
            EXECUTE format('DROP TABLE %I', segment);
            dropped := dropped + 1;
        END IF;
    END LOOP;
    RETURN dropped;
END;
$$;

SELECT usage_segment(day) FROM (SELECT DISTINCT floor(finished_at_s / 86400)::BIGINT AS day FROM usage_before) AS days;
INSERT INTO usage SELECT * FROM usage_before;
DROP TABLE usage_before;
