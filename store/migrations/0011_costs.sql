-- What cost as much as a terminal ever had, or the square of it, costs what is new. The index locks out writers of
-- fault_period while it is built, about a second for a million rows; the rest changes a function alone.

-- What is open at a terminal, and what ended since; also serves what fault_period_open did.
CREATE INDEX fault_period_closed ON fault_period (elevator_id, terminal_id, closed);
DROP INDEX fault_period_open;

-- At most 256 ranges instead of 64: the first and the newest. An island between them is forgotten, so the ledger may
-- claim less than the rows, never more; and once retention has deleted its rows nobody knows that it was there.
CREATE OR REPLACE FUNCTION ledger_bounded(numbers int8multirange)
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
            WHERE part.place = 1 OR part.place > part.parts - 255
        )
    END
$$;

-- As before, but of the gaps of a source only those are written that are not as they were. What is missing and what is
-- accounted for have no number in common, so what of a gap is accounted for is what was filled.
CREATE OR REPLACE FUNCTION ledger_write(
    sources int4[], froms int8[], tos int8[], elevator_ids int8[], times timestamptz[], touched int4[],
    at timestamptz
)
RETURNS TABLE (missed numeric, filled numeric)
LANGUAGE plpgsql
AS $$
DECLARE
    one record;
    known int8multirange;
    known_to int8;
    gaps sequence_gap[];
    still sequence_gap[];
    gone sequence_gap[];
    fresh_gaps sequence_gap[];
    fresh int4[];
    told_of int4[] := '{}';
    concerned int4[];
BEGIN
    missed := 0;
    filled := 0;
    -- Boots that the ledger has not heard of: one may stand between two others.
    fresh := ARRAY(
        SELECT DISTINCT run.source
        FROM unnest(sources) AS run (source)
        WHERE NOT EXISTS (SELECT FROM sequence_ledger AS ledger WHERE ledger.source = run.source)
    );

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

    IF fresh <> '{}' OR touched <> '{}' THEN
        told_of := source_told_of(touched, fresh);
        INSERT INTO sequence_ledger AS ledger (source, accounted, told, updated)
        SELECT own.source, '{}', max(told.seq_last), at
        FROM unnest(told_of) AS own (source)
        CROSS JOIN LATERAL source_told(own.source) AS told
        GROUP BY own.source
        ORDER BY own.source
        ON CONFLICT (source) DO UPDATE
        SET told = excluded.told
        WHERE ledger.told IS DISTINCT FROM excluded.told;

        UPDATE sequence_ledger AS ledger
        SET told = NULL
        WHERE ledger.source = ANY (told_of)
          AND ledger.told IS NOT NULL
          AND NOT EXISTS (SELECT FROM source_told(ledger.source));
    END IF;

    -- As an array: the ledger is looked up by its key, however large it is.
    concerned := ARRAY(
        SELECT unnest(sources)
        UNION
        SELECT unnest(touched)
        UNION
        SELECT unnest(told_of)
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

        -- Once, not for each gap: a large one is compressed.
        known_to := upper(one.accounted);
        still := ARRAY(
            SELECT (lower(part.range), upper(part.range) - 1, at, NULL, one.source,
                    known_to IS NULL OR lower(part.range) >= known_to, part.outcome)::sequence_gap
            FROM (
                SELECT unnest(one.missing * one.dropped) AS range, 'dropped' AS outcome
                UNION ALL
                SELECT unnest(one.missing - one.dropped), 'open'
            ) AS part
        );
        gone := ARRAY(
            SELECT old
            FROM unnest(gaps) AS old
            LEFT JOIN unnest(still) AS now USING (seq_from, seq_to, tail, outcome)
            WHERE now.source IS NULL
        );
        fresh_gaps := ARRAY(
            SELECT now
            FROM unnest(still) AS now
            LEFT JOIN unnest(gaps) AS old USING (seq_from, seq_to, tail, outcome)
            WHERE old.source IS NULL
        );

        DELETE FROM sequence_gap AS gap
        USING unnest(gone) AS old
        WHERE gap.source = one.source AND gap.seq_from = old.seq_from AND gap.seq_to = old.seq_to;

        -- A gap that is still there in part keeps its time, or that of its oldest part.
        INSERT INTO sequence_gap AS gap (source, seq_from, seq_to, noted, settled, tail, outcome)
        SELECT one.source, lower(part.range), upper(part.range) - 1, old.noted, at, old.tail, 'filled'
        FROM unnest(gone) AS old
        CROSS JOIN LATERAL unnest(int8multirange(int8range(old.seq_from, old.seq_to, '[]')) * one.accounted)
            AS part (range)
        UNION ALL
        SELECT one.source, now.seq_from, now.seq_to,
               coalesce(same.noted, (
                   SELECT min(old.noted)
                   FROM unnest(gone) AS old
                   WHERE same.noted IS NULL
                     AND old.seq_from <= now.seq_to
                     AND old.seq_to >= now.seq_from
               ), at),
               NULL, now.tail, now.outcome
        FROM unnest(fresh_gaps) AS now
        LEFT JOIN unnest(gone) AS same USING (seq_from, seq_to)
        ON CONFLICT (source, seq_from, seq_to) DO UPDATE
        SET noted = excluded.noted, settled = excluded.settled, tail = excluded.tail, outcome = excluded.outcome;

        missed := missed + (
            SELECT coalesce(sum(upper(range) - lower(range)), 0)
            FROM unnest((one.missing - known) - one.dropped) AS range
        );
        filled := filled + (
            SELECT coalesce(sum(upper(range) - lower(range)), 0)
            FROM unnest(known * one.accounted) AS range
        );
        UPDATE sequence_ledger AS ledger
        SET missing = one.missing
        WHERE ledger.source = one.source;
    END LOOP;
    RETURN NEXT;
END
$$;
