-- Alarms, their events in one gapless order of commits, their evidence, acknowledgements, and what was not
-- raised. New tables only: locks nothing that is in use.

-- The head of the alarm stream. One row: whoever numbers events holds its lock until the commit, so the order
-- of numbers is the order of commits. A sequence would not do: it lets a later number commit first, and a
-- follower that has read past it never sees the earlier one.
CREATE TABLE alarm_stream (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    n bigint NOT NULL CHECK (n >= 0),
    -- Events up to this number are no longer kept.
    retired bigint NOT NULL CHECK (retired >= 0 AND retired <= n)
);
INSERT INTO alarm_stream (n, retired) VALUES (0, 0);

-- The current row of every alarm: domain::Alarm, field by field.
CREATE TABLE alarm (
    began timestamptz NOT NULL,
    raised timestamptz NOT NULL,
    cleared timestamptz,
    acknowledged timestamptz,
    elevator_id bigint NOT NULL,
    seq bigint NOT NULL,
    boot bigint NOT NULL,
    -- Number of its latest event.
    no bigint NOT NULL,
    area integer NOT NULL,
    severity smallint NOT NULL CHECK (severity BETWEEN 1 AND 4),
    score smallint NOT NULL CHECK (score BETWEEN 0 AND 100),
    -- Its evidence is in alarm_evidence.
    sealed boolean NOT NULL DEFAULT false,
    id uuid PRIMARY KEY,
    terminal_id text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    acknowledged_by text,
    floor text,
    evidence jsonb NOT NULL
);
CREATE INDEX alarm_newest ON alarm (raised DESC, id DESC);
CREATE INDEX alarm_of_elevator ON alarm (elevator_id, raised DESC, id DESC);
-- What a snapshot and the re-offering of unacknowledged alarms read: few rows, however long the history.
CREATE INDEX alarm_open ON alarm (severity, raised)
WHERE cleared IS NULL
    AND state NOT IN ('archived', 'false_alarm', 'self_released', 'duplicate', 'cancelled', 'accident');
-- What the sealer has still to do.
CREATE INDEX alarm_unsealed ON alarm (raised)
WHERE NOT sealed;

-- What happened to alarms. Append-only.
CREATE TABLE alarm_event (
    no bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    elevator_id bigint NOT NULL,
    area integer NOT NULL,
    severity smallint NOT NULL,
    alarm_id uuid NOT NULL,
    change text NOT NULL,
    -- The whole alarm after it.
    alarm jsonb NOT NULL,
    -- SHA-256 over what makes the engine's decision this one and no other, so that a replay of the log after
    -- a crash adds nothing. Acknowledgements have none: their idempotency key does the same.
    decision bytea
);
CREATE UNIQUE INDEX alarm_event_once ON alarm_event (alarm_id, decision);
CREATE INDEX alarm_event_of_alarm ON alarm_event (alarm_id, no);

-- Readings around an alarm, rule, thresholds and trace; `json` is kept as the very bytes that were hashed.
CREATE TABLE alarm_evidence (
    sealed timestamptz NOT NULL,
    alarm_id uuid PRIMARY KEY,
    json text NOT NULL,
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32)
);

-- Idempotency keys of acknowledgements: the same key again gives the first result.
CREATE TABLE alarm_acknowledgement (
    at timestamptz NOT NULL,
    no bigint NOT NULL,
    alarm_id uuid NOT NULL,
    idempotency_key text PRIMARY KEY,
    actor text NOT NULL,
    note text NOT NULL
);
CREATE INDEX alarm_acknowledgement_of_alarm ON alarm_acknowledgement (alarm_id, no);

-- Candidates that were not raised, and why. The key makes a replay add nothing.
CREATE TABLE suppression (
    at timestamptz NOT NULL,
    began timestamptz NOT NULL,
    elevator_id bigint NOT NULL,
    rule_version integer NOT NULL,
    terminal_id text NOT NULL,
    kind text NOT NULL,
    rule text NOT NULL,
    reason text NOT NULL,
    trace text NOT NULL,
    PRIMARY KEY (elevator_id, at, rule, kind, began, reason)
);

-- Refuses changes to what may only grow. Retention alone may delete, and says so for its own transaction.
CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('liftwatch.retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = 'insufficient_privilege',
        HINT = 'Corrections are new entries; only retention deletes.';
END;
$$;
CREATE TRIGGER alarm_event_append_only BEFORE UPDATE OR DELETE ON alarm_event
FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER alarm_evidence_append_only BEFORE UPDATE OR DELETE ON alarm_evidence
FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER suppression_append_only BEFORE UPDATE OR DELETE ON suppression
FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- TRUNCATE fires no row triggers.
CREATE FUNCTION refuse_truncate() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: TRUNCATE refused', TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END;
$$;
CREATE TRIGGER alarm_event_no_truncate BEFORE TRUNCATE ON alarm_event
FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();
