//! The commands of the certificate authority.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::TerminalId;

#[derive(Debug, Args)]
pub(crate) struct PkiFolder {
    /// Where the authority keeps its files
    #[arg(long, value_name = "FOLDER", default_value = "pki")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make a certificate authority and a server certificate, and print what to put into the configuration
    ///
    /// ca.key signs certificates: keep it off the server if you can, and keep a copy of the folder.
    Init {
        #[command(flatten)]
        folder: PkiFolder,
        /// Names and addresses by which terminals reach the server; localhost, 127.0.0.1 and ::1 are added
        #[arg(long = "host", value_name = "NAME", value_delimiter = ',')]
        hosts: Vec<String>,
        /// Name of the authority in certificates
        #[arg(long, default_value = "Liftwatch device CA")]
        name: String,
        /// Days the authority is valid
        #[arg(long, default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Days the server certificate is valid
        #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        server_days: u32,
    },
    /// Issue certificates for terminals: terminals/ID.pem and terminals/ID.key
    Issue {
        /// Their ids, which become the common names
        #[arg(required = true)]
        ids: Vec<TerminalId>,
        #[command(flatten)]
        folder: PkiFolder,
        /// Days they are valid
        #[arg(long, default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Also where one is valid already; that one stays valid until it is revoked by its serial number
        #[arg(long)]
        renew: bool,
    },
    /// Issue the server certificate again, for other names or a new term; the running server takes it up by itself
    Server {
        #[command(flatten)]
        folder: PkiFolder,
        /// Names and addresses by which terminals reach the server; localhost, 127.0.0.1 and ::1 are added
        #[arg(long = "host", value_name = "NAME", value_delimiter = ',')]
        hosts: Vec<String>,
        /// Days it is valid
        #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Revoke certificates: crl.pem is signed again, and a running server ends their connections
    Revoke {
        /// Terminals all of whose certificates are revoked
        #[arg(required_unless_present = "serial")]
        ids: Vec<TerminalId>,
        /// One certificate, by its serial number as 'pki list' shows it
        #[arg(long, value_name = "HEX", conflicts_with = "ids")]
        serial: Option<String>,
        #[command(flatten)]
        folder: PkiFolder,
    },
    /// List what was issued
    List {
        #[command(flatten)]
        folder: PkiFolder,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}
