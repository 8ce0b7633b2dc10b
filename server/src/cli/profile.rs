//! The commands about vendor profiles.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use domain::DeviceKind;

use super::ConfigArgs;

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// 电梯
    Lift,
    /// 自动扶梯
    Escalator,
    /// 自动人行道
    Walk,
    /// 杂物电梯
    Dumbwaiter,
}

impl From<KindArg> for DeviceKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Lift => Self::Lift,
            KindArg::Escalator => Self::Escalator,
            KindArg::Walk => Self::Walk,
            KindArg::Dumbwaiter => Self::Dumbwaiter,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// List the profiles that a server knows
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print the TOML of a profile, to begin an own one with
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Check a profile, and explain every mistake in it
    Check {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Show how a payload would be read, field by field
    #[command(verbatim_doc_comment)]
    ///
    ///   liftwatch profile try gprs_tlv '{"time":"20261122080000","codes":"04"}'
    ///   liftwatch profile try acme.toml @payload.json --event
    Try {
        /// A file, or the name of a profile that a server knows
        profile: String,
        /// JSON as it stands, @FILE, or - for standard input
        payload: String,
        /// The kind of device that sends it; without it, the first the profile speaks for
        #[arg(long, value_enum)]
        kind: Option<KindArg>,
        /// It came under event.json, not telemetry.json
        #[arg(long)]
        event: bool,
        /// It came under stats.json
        #[arg(long, conflicts_with = "event")]
        stats: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}
