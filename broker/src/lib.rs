//! The way in and out: an MQTT gate of our own in front of a rumqttd hub.
//!
//! Owns the listener, every MQTT connection, the fan-out to subscribers and the retained messages. Promises:
//!
//! - a QoS 1 or 2 publish is acknowledged only after every holder of its [`Ack`] said `done`, in arrival order;
//! - a client publishes and subscribes only within the filters of its [`Principal`];
//! - memory is bounded by [`GateConfig`] and [`HubConfig`], whatever clients, the store or subscribers do;
//! - what a client sends never panics the process.
//!
//! Knows nothing of elevators: topics and payloads are opaque, [`Authenticate`] decides who may do what, and
//! the receiver of [`Inbound`] decides what a message means.

mod ack;
mod auth;
mod codec;
mod config;
mod connection;
mod downlink;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod handshake;
mod hub;
mod inbound;
mod limits;
mod listen;
mod metrics;
mod packet;
mod refusals;
mod session;
mod sessions;
mod tls;
mod topic;
mod websocket;

pub use ack::Ack;
pub use auth::{
    AuthFuture, Authenticate, ClientCertificate, ConnectInfo, Origin, Principal, PrincipalKind, Protocol,
    Refusal, Transport,
};
pub use config::{ClientCertificates, GateConfig, HubConfig, RateLimits, TlsConfig, WebSocketConfig};
pub use downlink::{DeliverError, Delivery, DeliveryReceipt};
pub use gate::{Gate, GateControl};
pub use hub::Hub;
pub use inbound::{Inbound, PresenceChange, Properties, Publish, QoS, Reason};
pub use ipnet::IpNet;
pub use listen::{BindError, BoundAddresses};
pub use metrics::Metrics;
pub use tls::TlsError;
pub use topic::{FilterError, TopicFilter};
