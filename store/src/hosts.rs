//! Where the database may be: the hosts of a URL, and which of them takes writes.
//!
//! A URL names several as libpq's does: `postgres://a:5432,b:5433/db`, or `?host=a,b&port=5432,5433`. They are
//! tried in order, beginning with the one that was good last; a standby is passed over. Promises that a
//! connection given out was a primary when it was made. Does not promote anything: that is for whoever runs
//! the databases, and so is keeping a former primary from coming back as a second one.

use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use crate::StoreError;

/// The hosts of a URL, in its order.
#[derive(Debug)]
pub(crate) struct Hosts {
    options: Vec<PgConnectOptions>,
    /// The one that was good last.
    current: AtomicUsize,
}

/// A connection to a host that takes writes.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) connection: PgConnection,
    /// Which host of the URL it is.
    pub(crate) place: usize,
    /// It is another than before.
    pub(crate) moved: bool,
}

impl Hosts {
    pub(crate) fn parse(url: &str) -> Result<Self, StoreError> {
        let options = expand(url).iter().map(|url| options(url)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { options, current: AtomicUsize::new(0) })
    }

    pub(crate) fn are_several(&self) -> bool {
        self.options.len() > 1
    }

    /// The place of the host that was good last.
    pub(crate) fn place(&self) -> usize {
        self.current.load(Ordering::Acquire)
    }

    /// Options of the host that was good last.
    pub(crate) fn current(&self) -> PgConnectOptions {
        ours(self.others())
    }

    /// The same without the settings that are ours alone: a session as anyone else gets it.
    pub(crate) fn others(&self) -> PgConnectOptions {
        self.options[self.place() % self.options.len()].clone()
    }

    /// A connection to the first host that takes writes. Each host has `wait` to answer.
    pub(crate) async fn connect(&self, wait: Duration) -> Result<Reached, StoreError> {
        let first = self.current.load(Ordering::Acquire);
        let mut failure = None;
        for step in 0..self.options.len() {
            let index = (first + step) % self.options.len();
            let tried = tokio::time::timeout(wait, self.connect_to(index)).await;
            // Nothing was asked yet: it is not there, rather than slow.
            let away = || Err(StoreError::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
            match tried.unwrap_or_else(|_| away()) {
                Ok(connection) => {
                    let moved = self.current.swap(index, Ordering::AcqRel) != index;
                    return Ok(Reached { connection, place: index, moved });
                }
                // A host that answers tells more than one that does not.
                Err(error) => match failure {
                    Some(StoreError::Standby | StoreError::Login(_)) => {}
                    _ => failure = Some(error),
                },
            }
        }
        Err(failure.unwrap_or(StoreError::Standby))
    }

    async fn connect_to(&self, index: usize) -> Result<PgConnection, StoreError> {
        let mut connection = ours(self.options[index].clone()).connect().await?;
        if self.are_several() && is_read_only(&mut connection).await? {
            // It hears of the end when the socket closes.
            drop(connection);
            return Err(StoreError::Standby);
        }
        Ok(connection)
    }
}

/// Whether this server takes no writes now.
pub(crate) async fn is_read_only(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool")
        .fetch_one(connection)
        .await
}

/// From now on the server refuses whatever would change anything in this session.
pub(crate) async fn only_look(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET default_transaction_read_only = on").execute(connection).await.map(drop)
}

/// After this long without an answer a connection that comes back to the pool is given up.
const PING_WAIT: Duration = Duration::from_secs(5);

/// Whether a connection that comes back to the pool is good; one that was cut in the middle of something, or
/// whose other end says nothing any more, must not keep its place.
pub(crate) async fn is_good(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(PING_WAIT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
    if !known {
        let why = "the scheme is neither postgres:// nor postgresql://";
        return Err(StoreError::Url(sqlx::Error::Configuration(why.into())));
    }
    let options = PgConnectOptions::from_str(url).map_err(StoreError::Url)?;
    Ok(options.application_name("liftwatch").disable_statement_logging())
}

/// With the settings of our sessions.
fn ours(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        // Promise 1: an acknowledgement means disk, whatever the server's default is.
        ("synchronous_commit", "on"),
        ("jit", "off"),
        // Time is kept by whoever asks; a bound of the role would end a large batch in the middle, for ever.
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        // The server notices within a minute that we are gone, and lets go of our locks.
        ("tcp_keepalives_idle", "20"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "4"),
    ])
}

/// One URL for each host.
fn expand(url: &str) -> Vec<String> {
    let (main, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut hosts, mut ports, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "host" | "hostaddr" => hosts = list(value),
            "port" => ports = list(value),
            // What we do anyway, and sqlx does not know.
            "target_session_attrs" => {}
            _ => rest.push(pair.to_owned()),
        }
    }
    let begin = main.find("://").map_or(0, |at| at + 3);
    let end = main[begin..].find('/').map_or(main.len(), |at| begin + at);
    let (user, authority) = match main[begin..end].rsplit_once('@') {
        Some((user, authority)) => (format!("{user}@"), authority),
        None => (String::new(), &main[begin..end]),
    };
    let with = |authority: &str, pairs: Vec<String>| {
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        format!("{}{user}{authority}{}{query}", &main[..begin], &main[end..])
    };
    if hosts.is_empty() {
        let alone = |authority: &str| {
            with(
                authority,
                rest.iter().cloned().chain(ports.first().map(|port| format!("port={port}"))).collect(),
            )
        };
        return authority.split(',').map(alone).collect();
    }
    let authority = authority.split(',').next().unwrap_or_default();
    let one = |(index, host): (usize, &String)| {
        let is_socket = host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f");
        let (host, own_port) = match host.rsplit_once(':') {
            Some((name, port)) if !is_socket && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, Some(port.to_owned()))
            }
            _ => (host.as_str(), None),
        };
        // One port is for all, as with libpq.
        let port = own_port.or_else(|| ports.get(index).or_else(|| ports.first()).cloned());
        let mut pairs = rest.clone();
        pairs.push(format!("host={host}"));
        pairs.extend(port.map(|port| format!("port={port}")));
        with(authority, pairs)
    };
    hosts.iter().enumerate().map(one).collect()
}

fn list(value: &str) -> Vec<String> {
    value
        .replace("%2C", ",")
        .replace("%2c", ",")
        .replace("%3A", ":")
        .replace("%3a", ":")
        .split(',')
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_libpq_reads_them() {
        for (url, each) in [
            ("postgres://u:p@h/db", vec!["postgres://u:p@h/db"]),
            ("postgres://u@localhost/db?host=%2Ftmp%2Fx", vec!["postgres://u@localhost/db?host=%2Ftmp%2Fx"]),
            (
                "postgres://u:p@a:1,b:2/db?sslmode=require&target_session_attrs=read-write",
                vec!["postgres://u:p@a:1/db?sslmode=require", "postgres://u:p@b:2/db?sslmode=require"],
            ),
            ("postgres://[::1]:5,b/db", vec!["postgres://[::1]:5/db", "postgres://b/db"]),
            (
                "postgres://u@x/db?host=a:1,b:2",
                vec!["postgres://u@x/db?host=a&port=1", "postgres://u@x/db?host=b&port=2"],
            ),
            (
                "postgres://u@x/db?host=a,b&port=7",
                vec!["postgres://u@x/db?host=a&port=7", "postgres://u@x/db?host=b&port=7"],
            ),
            (
                "postgres://u@x/db?host=%2Fs1%2C%2Fs2&port=1,2",
                vec!["postgres://u@x/db?host=%2Fs1&port=1", "postgres://u@x/db?host=%2Fs2&port=2"],
            ),
        ] {
            assert_eq!(expand(url), each, "{url}");
            assert_eq!(Hosts::parse(url).unwrap().options.len(), each.len());
        }
    }

    #[tokio::test]
    async fn a_host_that_does_not_answer_is_away_and_not_slow() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hosts = Hosts::parse(&format!("postgres://u@{}/db", silent.local_addr().unwrap())).unwrap();
        let error = hosts.connect(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }

    #[test]
    fn other_schemes_are_refused() {
        assert!(matches!(Hosts::parse("mysql://a,b/db"), Err(StoreError::Url(_))));
    }
}
