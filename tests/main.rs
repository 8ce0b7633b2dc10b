//! End-to-end and fault tests: real `liftwatch` processes, the real TimescaleDB, foreign MQTT clients.

mod access;
mod alarms;
mod audit;
mod cli;
mod downlink;
mod faults;

mod harness;
mod ingest;
mod messages;
mod profiles;
mod tidy;
