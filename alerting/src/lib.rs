//! Alerting: the rules that find entrapments and grave faults, and the service that tells dispatchers.

pub mod engine;
