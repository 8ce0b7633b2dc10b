-- Counters of terminals, and occurrences of faults. New tables only: locks nothing in use.

-- One row per statistics message: a hypertable, because a large fleet sends millions a day and old ones go by
-- chunks. Keyed and redelivered as readings are.
CREATE TABLE statistics (
    elevator_id      int8 NOT NULL,
    time             timestamptz NOT NULL,
    seq              int8 NOT NULL,
    arrival_no       int8 NOT NULL,
    arrived          timestamptz NOT NULL,
    door_open_count  int8,
    energy_wh        int8,
    running_s        int8,
    run_count        int8,
    rope_bend_count  int8,
    mileage_m        int8,
    passenger_count  int8,
    levelling_count  int8,
    round_trip_count int8,
    source           int4 NOT NULL,
    age_ms           int4,
    skew_ms          int4,
    PRIMARY KEY (elevator_id, time, seq, source)
);
SELECT create_hypertable('statistics', by_range('time', INTERVAL '7 days'), create_default_indexes => false);
CREATE INDEX statistics_brin ON statistics USING brin (time, arrival_no) WITH (autosummarize = on);

-- One row per occurrence of a fault at a terminal, derived from the rows of `fault` and kept longer than they.
-- `opened` and `closed` are corrected device time (arrival less age).
CREATE TABLE fault_period (
    elevator_id int8 NOT NULL,
    opened      timestamptz NOT NULL,
    closed      timestamptz,
    device_time timestamptz,
    listed      bool NOT NULL DEFAULT false,
    terminal_id text NOT NULL,
    code        text NOT NULL,
    slug        text NOT NULL,
    opened_by   text NOT NULL DEFAULT 'event' CHECK (opened_by IN ('event', 'once', 'list', 'server')),
    closed_by   text CHECK (closed_by IN ('event', 'once', 'list', 'no_fault', 'normal', 'server')),
    PRIMARY KEY (elevator_id, terminal_id, code, opened),
    CHECK (closed >= opened)
);
COMMENT ON COLUMN fault_period.device_time IS 'as sent, of what opened it';
COMMENT ON COLUMN fault_period.listed IS 'a list of active faults has named it';
CREATE INDEX fault_period_opened ON fault_period (opened);
CREATE INDEX fault_period_open ON fault_period (elevator_id, terminal_id) WHERE closed IS NULL;

-- How far fault_period has followed each terminal; also the row that orders two writers of one terminal.
CREATE TABLE fault_head (
    elevator_id int8 NOT NULL,
    seq         int8,
    at          timestamptz,
    source      int4,
    source_max  int4,
    terminal_id text NOT NULL,
    PRIMARY KEY (elevator_id, terminal_id)
) WITH (fillfactor = 70);
