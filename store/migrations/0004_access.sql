-- Who may connect: secrets of terminals, accounts of integrations, and the word that something has changed. New
-- tables only, but for triggers on `terminal`, whose lock waits for no more than the statement under way.

CREATE TABLE credential (
    changed        timestamptz NOT NULL DEFAULT now(),
    previous_until timestamptz,
    terminal_id    text PRIMARY KEY REFERENCES terminal ON DELETE CASCADE,
    hash           text NOT NULL CHECK (hash LIKE '$argon2id$%'),
    previous_hash  text CHECK (previous_hash LIKE '$argon2id$%'),
    CHECK ((previous_hash IS NULL) = (previous_until IS NULL))
);
COMMENT ON TABLE credential IS 'secrets of terminals, hashed; a terminal without one has a certificate';
COMMENT ON COLUMN credential.previous_hash IS 'the secret before a rotation, until the new one was used';

CREATE TABLE account (
    created timestamptz NOT NULL DEFAULT now(),
    changed timestamptz NOT NULL DEFAULT now(),
    enabled bool NOT NULL DEFAULT true,
    name    text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_.]{0,31}$'),
    hash    text NOT NULL CHECK (hash LIKE '$argon2id$%'),
    areas   int4[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE account IS 'integrations: other systems and dashboards, which read';
COMMENT ON COLUMN account.areas IS 'regions it sees, six digits each (350000: all of 35); none: all';

-- Tells every server to read again. Without a payload, so that a transaction sends one, however much it changes;
-- what was missed is found by the servers' own regular reading.
CREATE FUNCTION access_changed()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_notify('liftwatch_access', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER terminal_access_changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF enabled, area, elevator_id, profile ON terminal
    FOR EACH STATEMENT EXECUTE FUNCTION access_changed();
CREATE TRIGGER credential_access_changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE ON credential
    FOR EACH STATEMENT EXECUTE FUNCTION access_changed();
CREATE TRIGGER account_access_changed
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE ON account
    FOR EACH STATEMENT EXECUTE FUNCTION access_changed();
