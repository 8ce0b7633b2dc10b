//! End-to-end and fault tests: real `liftwatch` processes, the real TimescaleDB, foreign MQTT clients.

mod access;
mod alarms;
mod audit;
mod chaos;
mod cli;
mod downlink;
mod faults;

mod harness;
mod ingest;
mod looking;
mod messages;
mod profiles;
mod proxy;
mod reconcile;
mod tidy;
