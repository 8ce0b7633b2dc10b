//! The store against a real TimescaleDB: a database per test.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod access;
mod common;
mod maintenance;
mod presence;
mod recovery;
mod retention;
mod rollup;
mod schema;
mod writer;
