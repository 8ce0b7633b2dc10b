-- How long things are kept, and what maintenance has done. New tables; the BRIN indexes lock out writers of their
-- tables while they are built, which read 100 MB in about a second.

-- What retention has let go, so that rollups are never made again from what is left of their readings. Rows of
-- `area` -1 hold for the whole table.
CREATE TABLE retention_mark (
    -- Rows before it may be gone. Never moves back.
    floor      timestamptz NOT NULL DEFAULT '-infinity',
    -- Where deleting goes on; begins anew once a week, for what came late.
    position   timestamptz NOT NULL DEFAULT '-infinity',
    swept      timestamptz NOT NULL DEFAULT '-infinity',
    deleted    int8 NOT NULL DEFAULT 0,
    area       int4 NOT NULL CHECK (area BETWEEN -1 AND 999999),
    table_name text NOT NULL,
    PRIMARY KEY (table_name, area)
);
COMMENT ON COLUMN retention_mark.deleted IS 'rows, or chunks of the whole table, let go so far';

-- One row per step of maintenance: when it ran, when it is due, what it said.
CREATE TABLE maintenance_step (
    started   timestamptz NOT NULL,
    finished  timestamptz NOT NULL,
    succeeded timestamptz,
    due       timestamptz NOT NULL,
    runs      int8 NOT NULL DEFAULT 0,
    failures  int8 NOT NULL DEFAULT 0,
    done      int8 NOT NULL DEFAULT 0,
    step      text PRIMARY KEY,
    error     text
) WITH (fillfactor = 50);
COMMENT ON COLUMN maintenance_step.done IS 'what it has done so far: stretches, chunks or rows';
COMMENT ON COLUMN maintenance_step.error IS 'of its last run; none if that went well';

-- Retention looks for the oldest of what only grows.
CREATE INDEX quarantine_arrived ON quarantine USING brin (arrived) WITH (autosummarize = on);
CREATE INDEX suppression_at ON suppression USING brin (at) WITH (autosummarize = on);
CREATE INDEX alarm_evidence_sealed ON alarm_evidence USING brin (sealed) WITH (autosummarize = on);
