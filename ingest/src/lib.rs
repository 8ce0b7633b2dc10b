//! From the broker's messages to rows and rules: decode, order, shard, batch, write, acknowledge.
//!
//! Owns the payload formats (protobuf, open JSON, and those of vendors by their profiles), the order of arrivals, and the way of a message to its
//! two consumers: the alerting engine and the store's writers. Promises that a message is acknowledged only
//! after both have committed what it caused, and that one that cannot be decoded goes to quarantine without
//! hurting its neighbours. Does not judge readings and holds no SQL.

mod decode;
mod json;
mod json_statistics;
mod metrics;
mod numbers;
mod pipeline;
mod presence;
mod profile;
mod receipt;
mod schema;
mod shard;
mod store_state;
mod topic;
mod unknown;

pub use decode::{Decoded, Undecodable, decode, decode_open};
pub use metrics::IngestMetrics;
pub use pipeline::{Ingest, IngestConfig, IngestError, Observed, Sink, Wiring};
pub use profile::{
    CANONICAL, CodeLine, FieldLine, Mistake, Profile, ProfileView, Profiles, ProfilesError, Resolver, Trace,
    Tried, check, try_read,
};
pub use receipt::IngestReceipt;
pub use schema::{Endpoint, Schema, asyncapi};
pub use store_state::StoreState;
pub use topic::{Channel, Format, Topic, TopicError, presence_topic};
