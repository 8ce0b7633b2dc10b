-- What a boot tells of the one before belongs to the boot that precedes it now. A boot between may arrive late, out of
-- an outbox: what was told moves to it. The index locks out makers of new sources while it is built, about a second
-- for a million boots; the rest changes functions alone.

CREATE INDEX source_terminal ON source (terminal_id, source);

-- As before: the terminal's source with the boot number one less; where there is none, the one first seen last before
-- this one. By index now, however many boots a terminal has.
CREATE OR REPLACE FUNCTION source_before(asked int4)
RETURNS int4
LANGUAGE sql
STABLE
AS $$
    SELECT coalesce(
        (
            SELECT before.source
            FROM source AS before
            WHERE before.terminal_id = own.terminal_id AND before.boot = own.boot - 1
        ),
        (
            SELECT max(before.source)
            FROM source AS before
            WHERE before.terminal_id = own.terminal_id AND before.source < own.source
        )
    )
    FROM source AS own
    WHERE own.source = asked
$$;

-- What is told of a boot: by the one with the next number, and by the one first seen next.
CREATE FUNCTION source_told(asked int4)
RETURNS TABLE (seq_last int8, noted timestamptz)
LANGUAGE sql
STABLE
AS $$
    SELECT told.seq_last, told.noted
    FROM source AS own
    CROSS JOIN LATERAL (
        SELECT after.source
        FROM source AS after
        WHERE after.terminal_id = own.terminal_id AND after.boot = own.boot + 1
        UNION
        SELECT min(after.source)
        FROM source AS after
        WHERE after.terminal_id = own.terminal_id AND after.source > own.source
    ) AS teller
    JOIN sequence_told AS told ON told.source = teller.source
    WHERE own.source = asked
      AND source_before(told.source) = asked
$$;

-- Sources of which something else may be told now: those that were heard of (`touched` tell something themselves, `fresh`
-- may stand between two others), and what stands, by number or as first seen, before those that tell and before the boots
-- with the next numbers.
CREATE FUNCTION source_told_of(touched int4[], fresh int4[])
RETURNS int4[]
LANGUAGE sql
STABLE
AS $$
    SELECT ARRAY(
        SELECT unnest(touched || fresh)
        UNION
        SELECT before.source
        FROM (
            SELECT own.source, own.terminal_id
            FROM source AS own
            WHERE own.source = ANY (touched)
            UNION
            SELECT after.source, after.terminal_id
            FROM source AS own
            JOIN source AS after ON after.terminal_id = own.terminal_id AND after.boot = own.boot + 1
            WHERE own.source = ANY (touched || fresh)
        ) AS teller
        CROSS JOIN LATERAL (
            SELECT source_before(teller.source)
            UNION
            SELECT max(source.source)
            FROM source
            WHERE source.terminal_id = teller.terminal_id AND source.source < teller.source
        ) AS before (source)
        WHERE before.source IS NOT NULL
    )
$$;

-- As before, but what is told is looked up anew wherever it may have changed; a tail that belongs to another boot now
-- is taken back, not called filled.
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
    gaps sequence_gap[];
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

        DELETE FROM sequence_gap AS gap
        WHERE gap.source = one.source AND gap.outcome <> 'filled';

        -- A gap that is still there keeps its time, or that of its oldest part.
        INSERT INTO sequence_gap AS gap (source, seq_from, seq_to, noted, settled, tail, outcome)
        SELECT one.source, lower(part.range), upper(part.range) - 1, part.noted, part.settled, part.tail, part.outcome
        FROM (
            SELECT unnest((int8multirange(int8range(old.seq_from, old.seq_to, '[]')) - one.missing) * one.accounted)
                       AS range,
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
            FROM unnest((known - one.missing) * one.accounted) AS range
        );
        UPDATE sequence_ledger AS ledger
        SET missing = one.missing
        WHERE ledger.source = one.source;
    END LOOP;
    RETURN NEXT;
END
$$;
