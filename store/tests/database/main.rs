//! The store against a real TimescaleDB: a database per test.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod access;
mod audit;
mod common;
mod community;
mod ledger;
mod maintenance;
mod messages;
mod presence;
mod recovery;
mod remounted;
mod retention;
mod rollup;
mod schema;
mod shown;
mod status;
mod upgrade;
mod writer;
