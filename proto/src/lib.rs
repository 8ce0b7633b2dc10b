//! The wire formats: `.proto` files, their checked-in Rust, and total conversions to domain types.
//!
//! Owns `liftwatch.telemetry.v1` (what terminals publish) and `liftwatch.dispatch.v1` (what dispatch centres
//! see). Conversions beside the generated code are total: `TryFrom`, or they do not exist. Knows no codes of
//! vendors: a raw code becomes a meaning through the function its caller passes in.

pub mod alarm;
pub mod decode;
pub mod encode;

/// What terminals publish.
pub mod telemetry {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!("generated/liftwatch.telemetry.v1.rs");
    }
}

/// What dispatch centres see and do.
pub mod dispatch {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!("generated/liftwatch.dispatch.v1.rs");
    }
}

/// The source of `liftwatch.telemetry.v1`, for documents.
pub const TELEMETRY_PROTO: &str = include_str!("../proto/liftwatch/telemetry/v1/telemetry.proto");

/// The compiled descriptions of all packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
