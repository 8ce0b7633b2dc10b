//! Simulated lifts and terminals that speak real MQTT, and recordings of what a broker received.
//!
//! Owns the physical model of a lift ([`lift`]), staged faults with their ground truth ([`fault`]), the
//! terminal as a pure state machine ([`terminal`]), fleets of them over real connections ([`fleet`]), and
//! [`recording`], [`record()`] and [`replay()`]. Pure parts take time and seeds as arguments and run at any speed;
//! only the shells read a clock. Knows the broker as any terminal does: by its MQTT port alone.

mod clock;
pub mod fault;
pub mod fleet;
pub mod lift;
mod mqtt;
mod record;
pub mod recording;
mod replay;
pub mod simulate;
pub mod terminal;

pub use fault::{Fault, FaultKind, PlannedFault, Truth, parse_plan};
pub use fleet::{Counts, Fleet, FleetConfig, FleetError, FleetHandle, FleetMonitor, FleetReport, Rate};
pub use mqtt::ConnectError;
pub use record::{RecordOptions, RecordReport, record};
pub use recording::{Recorder, Recording};
pub use replay::{ReplayOptions, ReplayReport, replay};
pub use simulate::{SimulateOptions, run};
pub use terminal::{Format, Qos};
