-- Occurrences of faults also follow the lists of active codes that readings carry. Columns of two small tables; the
-- changes are of the catalogue alone.

ALTER TABLE fault_period DROP COLUMN listed;
ALTER TABLE fault_period ADD COLUMN listed timestamptz;
COMMENT ON COLUMN fault_period.listed IS 'since when the lists of readings name it; their silence ends it';

-- No occurrence of the terminal begins or ends after it; none: after `at`.
ALTER TABLE fault_head ADD COLUMN changed timestamptz;
