//! From the broker's messages to rows and rules: decode, order, shard, batch, write, acknowledge.
//!
//! Owns the payload formats (protobuf and open JSON), the order of arrivals, and the way of a message to its
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
mod shard;
mod topic;

pub use decode::{Decoded, Undecodable, decode};
pub use metrics::IngestMetrics;
pub use pipeline::{Ingest, IngestConfig, IngestError, IngestReceipt, Observed, Sink, Wiring};
pub use profile::gb24476;
pub use topic::{Channel, Format, Topic, TopicError, presence_topic};
