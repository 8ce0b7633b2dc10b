//! What the benchmarks share; each takes what it needs.
#![allow(dead_code, unused_imports)]

pub(crate) mod raw_copy;
mod readings;
pub(crate) mod run;

pub(crate) use readings::incoming;
