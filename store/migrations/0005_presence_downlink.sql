-- Whether terminals are connected, and orders that wait for them. New tables only: locks nothing in use.

-- One row per terminal, rewritten when it comes or goes: room in the page and no index but the key, so that
-- every update stays on its page (HOT).
CREATE TABLE presence (
    terminal_id text PRIMARY KEY,
    -- The change it covers, in the order of arrivals: an older one changes nothing.
    arrival_no bigint NOT NULL,
    -- Connected since, or silent since.
    since timestamptz NOT NULL,
    -- The last sign of life that presence knows of; messages of a connection under way are not counted here.
    last_seen timestamptz NOT NULL,
    online boolean NOT NULL,
    reason text NOT NULL
) WITH (fillfactor = 70);

-- Orders to terminals, delivered when the terminal has acknowledged them.
CREATE TABLE downlink (
    downlink_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    delivered timestamptz,
    -- Of a report rate.
    interval_ms integer CHECK (interval_ms > 0),
    for_s integer CHECK (for_s > 0),
    terminal_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('clock_set', 'report_rate', 'live_view')),
    actor text NOT NULL,
    CHECK ((kind = 'report_rate') = (interval_ms IS NOT NULL AND for_s IS NOT NULL))
);
-- What is still to be delivered: few rows, however long the history.
CREATE INDEX downlink_waiting ON downlink (terminal_id, downlink_id)
WHERE delivered IS NULL;
CREATE INDEX downlink_created ON downlink (created);
