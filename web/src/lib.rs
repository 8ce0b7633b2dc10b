//! HTTP for people, programs and monitoring: the status page, the open read API, metrics and health.
//!
//! Owns what is said over HTTP and how much of it at once: connections, time per request, queries at once are
//! bounded ([`limits`]). Promises that every error names a way out (`application/problem+json`), that pages
//! need nothing from outside this process, and that nothing here changes anything: all requests only read.
//! Does not decide what ready means: the checks come from the process that holds the parts.

mod api;
mod health;
pub mod limits;
mod metrics;
mod page;
mod problem;
mod rate;
mod router;
mod serve;
mod state;

pub use api::documents::Documents;
pub use metrics::Metrics;
pub use serve::serve;
pub use state::{Check, Figures, LiveFigures, Parts, State};
