-- What a deadline changes in a state comes with no message: who follows the fleet finds it by a number of its own. A
-- new column without values: locks the table for a moment, and rewrites nothing.

ALTER TABLE elevator_state ADD COLUMN changed_no bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN elevator_state.changed_no IS 'engine_position was below it until this row was written; 0 in rows of before';

-- A clock that leapt ahead and is set back only in part is not believed at once. A new column without values.
ALTER TABLE maintenance_clock ADD COLUMN believed timestamptz;
COMMENT ON COLUMN maintenance_clock.believed IS 'what it showed when it was believed last; NULL while it is believed';
