//! Who may connect, and as what.
//!
//! Owns the decision on every CONNECT. A terminal proves its id by a client certificate (common name = client id)
//! or by its secret; an integration account by its password. What may connect lies in memory, read from the store
//! and kept fresh by [`Watch`], so that terminals connect while the database is away. Promises: a refusal tells a
//! client no more than the protocol's reason code, and an unknown id costs the same work as a known one.

mod dev;
mod keeper;
mod lane;
mod metrics;
mod rights;
pub(crate) mod secret;
mod throttle;
mod watch;

pub(crate) use dev::TakeAtWord;
pub(crate) use keeper::Gatekeeper;
pub(crate) use metrics::AuthMetrics;
pub(crate) use watch::{Watch, reread};

/// Whether this can be the name of an account: part of every client id of the account, up to the first `-` or
/// `/`, which is why it holds neither.
pub(crate) fn is_account_name(name: &str) -> bool {
    let mut letters = name.bytes();
    (1..=32).contains(&name.len())
        // What the gate names clients that come without an id.
        && name != "anonymous"
        && letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.'))
}

/// The account that a client id belongs to, if it belongs to one.
fn account_part(client_id: &str) -> &str {
    client_id.split(['-', '/']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_belongs_to_one_account() {
        for (id, account) in [("board", "board"), ("board-1", "board"), ("board/a-b", "board"), ("-x", "")] {
            assert_eq!(account_part(id), account);
        }
        for good in ["a", "city_board", "x.y2"] {
            assert!(is_account_name(good), "{good}");
            assert_eq!(account_part(good), good);
        }
        for bad in ["", "a-b", "a/b", "Board", "1a", "anonymous", "电梯", &"x".repeat(33)] {
            assert!(!is_account_name(bad), "{bad}");
        }
    }
}
