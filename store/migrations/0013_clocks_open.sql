-- Which clocks are off now is asked beside acknowledgements, of a table that keeps ten years. The index locks out
-- writers of fault_period while it is built, about a second for a million rows; it holds what the server has open.
CREATE INDEX fault_period_server ON fault_period (terminal_id) WHERE closed IS NULL AND opened_by = 'server';
