-- What is deleted is deleted by a clock that has been right for a while, and the audit excuses a missing number by
-- what retention did to rows of its own elevator alone. New table and columns; nothing is rewritten.

-- What maintenance has seen of the clock.
CREATE TABLE maintenance_clock (
    -- Of the last run.
    seen   timestamptz NOT NULL,
    -- To where it leapt, until it is believed.
    leapt  timestamptz,
    single bool PRIMARY KEY DEFAULT true CHECK (single)
) WITH (fillfactor = 50);

-- Rows of an elevator that moves to another division may be gone by what its old division kept.
ALTER TABLE elevator ADD COLUMN kept_since timestamptz;
COMMENT ON COLUMN elevator.kept_since IS 'rows before it may be gone since it was in another division; NULL where it was in none';

CREATE FUNCTION elevator_moves()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.kept_since := greatest(OLD.kept_since, (
        SELECT max(floor)
        FROM retention_mark
        WHERE area = OLD.area
          AND table_name IN ('telemetry', 'fault', 'statistics')
    ));
    RETURN NEW;
END
$$;
CREATE TRIGGER elevator_moves
    BEFORE UPDATE OF area ON elevator
    FOR EACH ROW
    WHEN (OLD.area <> NEW.area)
    EXECUTE FUNCTION elevator_moves();

-- Numbers whose entries in quarantine retention has deleted.
ALTER TABLE sequence_ledger ADD COLUMN expired int8multirange NOT NULL DEFAULT '{}';
COMMENT ON COLUMN sequence_ledger.expired IS 'were in quarantine until retention deleted them; bounded as accounted is';
