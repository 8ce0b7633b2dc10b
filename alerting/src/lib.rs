//! Alarms: the pure engine that judges, the shell that makes its decisions durable, and the service through
//! which dispatch centres see and take them.
//!
//! Data moves one way: inputs ► [`engine`] ► committer ► store ► [`Streams`] ► [`service`]. What is decided is
//! never asked back: the engine does not know what people did with its alarms.

mod clock;
mod config;
pub mod engine;
mod metrics;
mod sealer;
pub mod service;
mod shell;
mod stream;
#[cfg(test)]
mod testing;

pub use clock::Clock;
pub use config::{Config, StreamConfig};
pub use metrics::{Metrics, SeverityLabel};
pub use shell::{Alerting, Handle, StartError, Stopped};
pub use stream::Streams;
