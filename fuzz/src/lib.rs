//! Fuzzing of everything that reads bytes of the network.
//!
//! Owns the targets ([`targets`]), their seeds ([`seeds`], written to `corpus/`), what changes inputs
//! ([`mutate`]) and what runs a target and tells how it ended ([`guard`]). `cargo test -p fuzz` replays corpus and
//! regressions on the stable compiler; `cargo run --release -p fuzz` runs for as long as asked. Measures no
//! coverage: seeds and tokens are what leads into depth.

pub mod files;
pub mod guard;
pub mod mutate;
pub mod seeds;
pub mod targets;
