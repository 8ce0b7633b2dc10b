//! The commands about who may connect: `terminal` and `account`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use domain::{Area, TerminalId};

use super::{ConfigArgs, KindArg};

/// Where a secret comes from.
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    /// Take the secret from this file, or from standard input (-), instead of making one up; 8 bytes or more
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: Option<PathBuf>,
}

/// What may be sent to a terminal; nothing else is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Set its clock to the server's
    Clock,
    /// Report a reading every --interval ms, for --for seconds
    ReportRate,
    /// Report once a second for 60 s
    Live,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TerminalCommand {
    /// Register a terminal and print its secret, which is shown this once
    #[command(verbatim_doc_comment)]
    ///
    /// The terminal connects with its id as client id and user name, and the secret as password:
    ///
    ///   SECRET=$(liftwatch terminal add t1 --area 350102)
    ///   mosquitto_pub -h HOST -i t1 -u t1 -P "$SECRET" -q 1 -t lift/v1/350102/t1/telemetry.json -m '{...}'
    ///
    /// With --no-secret it needs a certificate instead: liftwatch pki issue t1
    Add {
        /// 1 to 64 characters of A-Z a-z 0-9 _ -
        id: TerminalId,
        /// Division (GB/T 2260, six digits) of its elevator
        #[arg(long)]
        area: Area,
        /// The elevator it serves, if that is known already; otherwise a new one is made
        #[arg(long, value_name = "NUMBER")]
        elevator: Option<i64>,
        /// Its vendor profile: 'liftwatch profile list' shows them
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
        /// What kind of device the new elevator is; without it, the first its profile speaks for
        #[arg(long, value_enum, conflicts_with = "elevator")]
        kind: Option<KindArg>,
        #[command(flatten)]
        secret: SecretArgs,
        /// No secret: it connects by certificate only
        #[arg(long, conflicts_with = "secret")]
        no_secret: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List terminals
    List {
        /// Only those of this region: 35, 3501 or 350102
        #[arg(long, value_parser = region)]
        area: Option<Area>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Show one terminal
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Switch terminals off: they are disconnected at once and refused from now on
    Disable {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<TerminalId>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Switch terminals on again
    Enable {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<TerminalId>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Say what terminals speak, and what kind of device they watch
    Set {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<TerminalId>,
        /// Their vendor profile
        #[arg(long, value_name = "NAME", required_unless_present = "kind")]
        profile: Option<String>,
        /// What kind of device their elevators are
        #[arg(long, value_enum)]
        kind: Option<KindArg>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Give a terminal a new secret and print it
    ///
    /// The old secret stays good until the terminal has used the new one, for 7 days at most.
    Rotate {
        /// Its id
        id: TerminalId,
        #[command(flatten)]
        secret: SecretArgs,
        /// The old secret is worth nothing from now on, and the terminal is disconnected
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Send an order to a terminal: its clock, its report rate, a live view
    ///
    /// The order waits for a terminal that sleeps, a live view for 60 s, the others for 24 h. A newer one of its
    /// kind takes its place. There are no other orders: nothing is ever sent to the elevator.
    Send {
        /// Its id
        id: TerminalId,
        /// What it is to do
        #[arg(value_enum)]
        order: Order,
        /// Between two readings, in ms: 200 to 3600000
        #[arg(long, value_name = "MS", required_if_eq("order", "report-rate"))]
        interval: Option<u32>,
        /// How long the report rate holds, in seconds; at most a week
        #[arg(long = "for", value_name = "S", default_value_t = 86_400)]
        for_s: u32,
        /// Wait until the terminal has acknowledged it; fail if it does not in time
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Register the terminals of a CSV file, all or none
    #[command(verbatim_doc_comment)]
    ///
    /// The first line names the columns: terminal_id, area, and, if you like, elevator, secret, profile and kind:
    ///
    ///   terminal_id,area,secret
    ///   t1,350102,
    ///   t2,350102,a secret the terminal has already
    ///
    /// Terminals without a secret get one, which is written to the file given with --out.
    Import {
        /// The file
        file: PathBuf,
        /// Where the secrets that were made up go (CSV, readable by you alone); must not exist yet
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Rows without a secret get none: those terminals connect by certificate only
        #[arg(long, conflicts_with = "out")]
        no_secret: bool,
        /// The secrets in the file are random, 128 bits or more: they are hashed lightly, so that a fleet comes
        /// back in seconds after a restart
        #[arg(long)]
        random_secrets: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Make an account for another system or a dashboard, and print its password, which is shown this once
    #[command(verbatim_doc_comment)]
    ///
    /// It reads and never publishes. Client ids are the name alone or begin with NAME- or NAME/:
    ///
    ///   PASSWORD=$(liftwatch account add wallboard --areas 3501)
    ///   mosquitto_sub -h HOST -i wallboard-1 -u wallboard -P "$PASSWORD" -t 'lift/v1/350102/#' -v
    Add {
        /// 1 to 32 characters of a-z 0-9 _ . beginning with a letter
        #[arg(value_parser = account_name)]
        name: String,
        /// What it may see: regions such as 35, 3501 or 350102, or all
        #[arg(long, required = true, value_delimiter = ',', value_parser = region_or_all)]
        areas: Vec<Region>,
        #[command(flatten)]
        secret: SecretArgs,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List accounts
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Switch an account off: its connections end at once
    Disable {
        /// Its name
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Switch an account on again
    Enable {
        /// Its name
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Give an account a new password and print it; the old one is worth nothing from now on
    Rotate {
        /// Its name
        name: String,
        #[command(flatten)]
        secret: SecretArgs,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Delete an account; its connections end at once
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// A region, or everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    All,
    One(Area),
}

fn region_or_all(text: &str) -> Result<Region, String> {
    if text == "all" { Ok(Region::All) } else { region(text).map(Region::One) }
}

/// `35`, `3501` or `350102`; the region without its trailing zeros.
pub(super) fn region(text: &str) -> Result<Area, String> {
    let wrong = || "a region has 2, 4 or 6 digits of GB/T 2260, as in 35, 3501 or 350102".to_owned();
    if !matches!(text.len(), 2 | 4 | 6) {
        return Err(wrong());
    }
    format!("{text:0<6}").parse().map_err(|_| wrong())
}

fn account_name(text: &str) -> Result<String, String> {
    match crate::auth::is_account_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 32 characters of a-z 0-9 _ . and begins with a letter; \
                      '-' and '/' end it in client ids"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_short_or_whole() {
        for (text, code) in [("35", "350000"), ("3501", "350100"), ("350102", "350102"), ("350000", "350000")]
        {
            assert_eq!(region(text).unwrap().to_string(), code);
        }
        for bad in ["", "3", "350", "3501020", "fj", "+5"] {
            assert!(region(bad).is_err(), "{bad}");
        }
        assert_eq!(region_or_all("all"), Ok(Region::All));
    }
}
