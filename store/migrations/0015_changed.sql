-- What a deadline changes in a state comes with no message: who follows the fleet finds it by a number of its own. A
-- new column without values: locks the table for a moment, and rewrites nothing.

ALTER TABLE elevator_state ADD COLUMN changed_no bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN elevator_state.changed_no IS 'engine_position was below it until this row was written; 0 in rows of before';
