//! Lifts that do not exist, behind terminals that do speak: load, faults and the truth about them.
//!
//! Owns the physical model of a lift ([`Lift`]), the behaviour of a terminal ([`terminal`], [`outbox`]), and
//! a fleet of them over real MQTT connections ([`Fleet`]). Promises: everything but [`mqtt`] and [`Fleet`] is
//! pure; the same seed gives the same lifts; an item is counted as acknowledged only when its PUBACK came.
//! Does not know the server: it speaks to any MQTT broker.

mod fault;
mod fleet;
mod lift;
mod motion;
pub mod mqtt;
pub mod outbox;
pub mod recording;
mod report;
mod session;
mod simulate;
pub mod terminal;

pub use fault::{Fault, ParseFaultError, Truth};
pub use fleet::{Fleet, FleetConfig, InjectError};
pub use lift::{CALLS_MAX, FLOOR_M, Happening, Lift, Observation, TRIPS_PER_DAY, ZONE_M};
pub use motion::{Bounds, Motion, State};
pub use report::{Acked, Counters, FleetReport, Latency};
pub use simulate::run;
