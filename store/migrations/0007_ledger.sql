-- The sequence ledger: which numbers of a terminal's boot are accounted for, and which are missing. Renames one
-- small table, adds columns without a default to `quarantine` (no rewrite); everything else is new.

-- What is gone because somebody says so: a terminal that had to discard, an operator who dropped it from quarantine.
ALTER TABLE sequence_gap RENAME TO sequence_dropped;
ALTER TABLE sequence_dropped RENAME CONSTRAINT sequence_gap_pkey TO sequence_dropped_pkey;
COMMENT ON TABLE sequence_dropped IS 'numbers that are gone: "dropped" by the terminal, "discarded" from quarantine by an operator';

-- The last number of the boot before, as the first messages of a boot tell it.
CREATE TABLE sequence_told (
    seq_last int8 NOT NULL,
    noted    timestamptz NOT NULL DEFAULT now(),
    source   int4 PRIMARY KEY
);

-- One row per source, written about once a second, never ahead of the rows. No index but the key, and room in
-- the page: updates stay on their page (HOT).
CREATE TABLE sequence_ledger (
    told       int8,
    time_first timestamptz,
    updated    timestamptz NOT NULL,
    source     int4 PRIMARY KEY,
    accounted  int8multirange NOT NULL,
    missing    int8multirange NOT NULL DEFAULT '{}',
    elevators  int8[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 70);
COMMENT ON COLUMN sequence_ledger.told IS 'last number of this boot, as the boot after it says';
COMMENT ON COLUMN sequence_ledger.time_first IS 'least device time of its rows: tells whether retention can have reached it';
COMMENT ON COLUMN sequence_ledger.accounted IS 'numbers that are rows or in quarantine';
COMMENT ON COLUMN sequence_ledger.missing IS 'as last written to sequence_gap';
COMMENT ON COLUMN sequence_ledger.elevators IS 'under which its rows are';

CREATE TABLE sequence_gap (
    seq_from int8 NOT NULL,
    seq_to   int8 NOT NULL,
    noted    timestamptz NOT NULL,
    settled  timestamptz,
    source   int4 NOT NULL,
    tail     bool NOT NULL,
    outcome  text NOT NULL CHECK (outcome IN ('open', 'filled', 'dropped')),
    PRIMARY KEY (source, seq_from, seq_to),
    CHECK (seq_from <= seq_to)
);
CREATE INDEX sequence_gap_open ON sequence_gap (noted) WHERE outcome = 'open';
CREATE INDEX sequence_gap_settled ON sequence_gap (settled) WHERE outcome = 'filled';

-- All rows with a number of arrival up to this one are in the ledger.
CREATE TABLE sequence_mark (
    arrival_no int8 NOT NULL,
    at         timestamptz NOT NULL,
    one        bool PRIMARY KEY DEFAULT true CHECK (one)
);

ALTER TABLE quarantine
    ADD COLUMN arrival_no int8,
    ADD COLUMN boot int8,
    ADD COLUMN numbers int8multirange;
COMMENT ON COLUMN quarantine.numbers IS 'sequence numbers of what is kept, where they are known';
CREATE INDEX quarantine_numbers ON quarantine (terminal_id, boot) WHERE numbers IS NOT NULL;

-- At most 64 ranges: the first and the newest. An island between them is forgotten, so the ledger may claim less
-- than the rows, never more.
CREATE FUNCTION ledger_bounded(numbers int8multirange)
RETURNS int8multirange
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE
        WHEN numbers = '{}' OR int8multirange(range_merge(numbers)) = numbers THEN numbers
        ELSE (
            SELECT range_agg(part.range)
            FROM (
                SELECT range, row_number() OVER (ORDER BY range) AS place, count(*) OVER () AS parts
                FROM unnest(numbers) AS range
            ) AS part
            WHERE part.place = 1 OR part.place > part.parts - 63
        )
    END
$$;

-- What is missing between the first and the last number, or up to the last number the boot after tells.
CREATE FUNCTION ledger_missing(accounted int8multirange, dropped int8multirange, told int8)
RETURNS int8multirange
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE
        WHEN known.numbers = '{}' THEN '{}'::int8multirange
        ELSE int8multirange(range_merge(known.numbers)) - accounted
    END
    FROM (
        SELECT accounted + dropped + CASE
            WHEN told > 0 AND (accounted = '{}' OR told >= upper(accounted))
            THEN int8multirange(int8range(told, told, '[]'))
            ELSE '{}'::int8multirange
        END AS numbers
    ) AS known
$$;

-- The source whose last number a boot tells: that of the terminal with the boot number one less; where there is
-- none, the terminal's source that was first seen last before this one.
CREATE FUNCTION source_before(asked int4)
RETURNS int4
LANGUAGE sql
STABLE
AS $$
    SELECT before.source
    FROM source AS own
    JOIN source AS before ON before.terminal_id = own.terminal_id
    WHERE own.source = asked
      AND (before.boot = own.boot - 1 OR before.source < own.source)
    ORDER BY before.boot = own.boot - 1 DESC, before.source DESC
    LIMIT 1
$$;

-- Adds runs of numbers to the ledger, takes account of what was told or dropped (`touched`), and keeps
-- sequence_gap in step. Returns how many numbers were found missing and how many were filled. Adding what is
-- there already changes nothing, so two processes may write the same.
CREATE FUNCTION ledger_write(
    sources int4[], froms int8[], tos int8[], elevator_ids int8[], times timestamptz[], touched int4[],
    at timestamptz
)
RETURNS TABLE (missed numeric, filled numeric)
LANGUAGE plpgsql
AS $$
DECLARE
    one record;
    known int8multirange;
    gaps sequence_gap[];
    concerned int4[];
BEGIN
    missed := 0;
    filled := 0;
    INSERT INTO sequence_ledger AS ledger (source, accounted, elevators, time_first, updated)
    SELECT run.source,
           ledger_bounded(range_agg(int8range(run.seq_from, run.seq_to, '[]'))),
           coalesce(array_agg(DISTINCT run.elevator_id) FILTER (WHERE run.elevator_id IS NOT NULL), '{}'),
           min(run.time),
           at
    FROM unnest(sources, froms, tos, elevator_ids, times)
         AS run (source, seq_from, seq_to, elevator_id, time)
    GROUP BY run.source
    ORDER BY run.source
    ON CONFLICT (source) DO UPDATE
    SET accounted = ledger_bounded(ledger.accounted + excluded.accounted),
        elevators = CASE
            WHEN ledger.elevators @> excluded.elevators THEN ledger.elevators
            ELSE ARRAY(SELECT DISTINCT unnest(ledger.elevators || excluded.elevators))
        END,
        time_first = least(ledger.time_first, excluded.time_first),
        updated = excluded.updated;

    INSERT INTO sequence_ledger AS ledger (source, accounted, told, updated)
    SELECT before.source, '{}', max(told.seq_last), at
    FROM sequence_told AS told
    CROSS JOIN LATERAL source_before(told.source) AS before (source)
    WHERE told.source = ANY (touched)
      AND before.source IS NOT NULL
    GROUP BY before.source
    ORDER BY before.source
    ON CONFLICT (source) DO UPDATE
    SET told = greatest(ledger.told, excluded.told);

    -- As an array: the ledger is looked up by its key, however large it is.
    concerned := ARRAY(
        SELECT unnest(sources)
        UNION
        SELECT unnest(touched)
        UNION
        SELECT source_before(told) FROM unnest(touched) AS told
    );
    FOR one IN
        SELECT ledger.source, ledger.accounted, now.dropped, now.missing
        FROM sequence_ledger AS ledger
        CROSS JOIN LATERAL (
            SELECT coalesce(range_agg(int8range(seq_from, least(seq_to, 9223372036854775806), '[]')), '{}') AS dropped
            FROM sequence_dropped AS gone
            WHERE gone.source = ledger.source
              AND gone.seq_from < 9223372036854775806
        ) AS said
        CROSS JOIN LATERAL (
            SELECT said.dropped, ledger_missing(ledger.accounted, said.dropped, ledger.told) AS missing
        ) AS now
        WHERE ledger.source = ANY (concerned)
          AND (ledger.missing <> '{}'
               OR ledger.accounted = '{}'
               OR int8multirange(range_merge(ledger.accounted)) <> ledger.accounted
               OR ledger.told IS NOT NULL
               OR ledger.source = ANY (touched))
          AND (ledger.missing <> now.missing OR ledger.source = ANY (touched))
        ORDER BY ledger.source
    LOOP
        SELECT coalesce(array_agg(gap), '{}'),
               coalesce(range_agg(int8range(gap.seq_from, gap.seq_to, '[]')), '{}')
        INTO gaps, known
        FROM sequence_gap AS gap
        WHERE gap.source = one.source AND gap.outcome <> 'filled';

        DELETE FROM sequence_gap AS gap
        WHERE gap.source = one.source AND gap.outcome <> 'filled';

        -- A gap that is still there keeps its time, or that of its oldest part.
        INSERT INTO sequence_gap AS gap (source, seq_from, seq_to, noted, settled, tail, outcome)
        SELECT one.source, lower(part.range), upper(part.range) - 1, part.noted, part.settled, part.tail, part.outcome
        FROM (
            SELECT unnest(int8multirange(int8range(old.seq_from, old.seq_to, '[]')) - one.missing) AS range,
                   old.noted, at AS settled, old.tail, 'filled' AS outcome
            FROM unnest(gaps) AS old
            UNION ALL
            SELECT still.range,
                   coalesce((
                       SELECT min(old.noted)
                       FROM unnest(gaps) AS old
                       WHERE int8range(old.seq_from, old.seq_to, '[]') && still.range
                   ), at),
                   NULL,
                   one.accounted = '{}' OR lower(still.range) >= upper(one.accounted),
                   still.outcome
            FROM (
                SELECT unnest(one.missing * one.dropped) AS range, 'dropped' AS outcome
                UNION ALL
                SELECT unnest(one.missing - one.dropped), 'open'
            ) AS still
        ) AS part
        ON CONFLICT (source, seq_from, seq_to) DO UPDATE
        SET noted = excluded.noted, settled = excluded.settled, tail = excluded.tail, outcome = excluded.outcome;

        missed := missed + (
            SELECT coalesce(sum(upper(range) - lower(range)), 0)
            FROM unnest((one.missing - known) - one.dropped) AS range
        );
        filled := filled + (
            SELECT coalesce(sum(upper(range) - lower(range)), 0)
            FROM unnest(known - one.missing) AS range
        );
        UPDATE sequence_ledger AS ledger
        SET missing = one.missing
        WHERE ledger.source = one.source;
    END LOOP;
    RETURN NEXT;
END
$$;
