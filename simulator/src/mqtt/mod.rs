//! MQTT as a small client speaks it: raw sockets, the codec of a library, nothing per connection but two
//! buffers. rumqttc's own client costs 25 KB a connection and drops unacknowledged publishes when it
//! reconnects (DESIGN.md 3); here the [`Client`] keeps what is unacknowledged.

mod drive;
mod link;
pub(crate) mod subscriber;

pub(crate) use drive::{Client, drive};
pub use link::ConnectError;
pub(crate) use link::{LinkOptions, resolve};
