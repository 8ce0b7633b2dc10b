-- Quarantine keeps payloads whole that can be decoded again, up to a bound a terminal and day. The index tells how much
-- of that is taken; it locks out writers of quarantine while it is built, about a second for a million entries, and
-- holds what is larger than the first 4 KB (none of what earlier versions kept). Payloads themselves are not read.
CREATE INDEX quarantine_whole ON quarantine (terminal_id, arrived) INCLUDE (payload_len) WHERE length(payload) > 4096;
COMMENT ON COLUMN quarantine.payload IS 'all of it; its first 4 KB where it is larger than is decoded, or too much of its terminal';
