-- The latest state of every elevator and the engine's state with the arrivals it covers. New tables only.

-- One row per elevator, rewritten about once a second while it moves: room in the page and no index but the
-- key, so that every update stays on its page (HOT).
CREATE TABLE elevator_state (
    elevator_id bigint PRIMARY KEY,
    -- The arrival that `engine` and the columns cover.
    arrival_no bigint NOT NULL,
    -- Server clock of that arrival.
    arrived timestamptz NOT NULL,
    last_seen timestamptz,
    time timestamptz,
    position_mm integer,
    velocity_mm_s integer,
    area integer NOT NULL,
    flags integer,
    vibration_mm_s2 integer,
    engine_version integer NOT NULL,
    service_mode smallint,
    car_status smallint,
    direction smallint,
    door_state smallint,
    passengers smallint,
    floor_ordinal smallint,
    load_kg smallint,
    people_count smallint,
    temperature_dc smallint,
    -- NULL where presence was never told.
    online boolean,
    door_zone boolean,
    -- Somebody in the car, as the rules judge.
    people boolean,
    terminal_id text NOT NULL,
    floor text,
    codes text[] NOT NULL,
    code_slugs text[] NOT NULL,
    -- The rules' memory: latch, timers, open alarms.
    engine jsonb NOT NULL
) WITH (fillfactor = 70);

-- Everything up to this arrival is covered by `elevator_state`; a start replays what arrived after it.
CREATE TABLE engine_position (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    arrival_no bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO engine_position (arrival_no) VALUES (0);
