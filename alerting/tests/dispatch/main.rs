//! Alerting against a real database, through its gRPC service.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test has nothing better to do

mod common;
mod outage;
mod restart;
mod service;
mod stream;
