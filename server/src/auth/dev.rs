//! `--dev`: no passwords, loopback only.

use broker::{AuthFuture, Authenticate, ConnectInfo, Principal, PrincipalKind, Refusal, TopicFilter};
use domain::TerminalId;

/// Takes everybody at their word. A client id that begins with `integration`, a user name `integration`, or
/// no client id at all makes an integration, which reads everything and publishes nothing; any other client
/// id is a terminal, which publishes and subscribes under its own id.
#[derive(Debug)]
pub(crate) struct TakeAtWord;

impl Authenticate for TakeAtWord {
    fn authenticate<'a>(&'a self, info: &'a ConnectInfo) -> AuthFuture<'a> {
        Box::pin(async move { principal(info) })
    }
}

fn principal(info: &ConnectInfo) -> Result<Principal, Refusal> {
    let integration = info.generated_id
        || info.client_id.starts_with("integration")
        || info.username.as_deref() == Some("integration");
    let filter = |text: &str| TopicFilter::new(text).map_err(|_| Refusal::BadClientId);
    if integration {
        return Ok(Principal {
            kind: PrincipalKind::Integration,
            publish: Vec::new(),
            subscribe: vec![filter("lift/v1/#")?],
        });
    }
    let terminal_id = TerminalId::new(&info.client_id).map_err(|_| Refusal::BadClientId)?;
    let own = filter(&format!("lift/v1/+/{terminal_id}/#"))?;
    Ok(Principal { kind: PrincipalKind::Terminal, publish: vec![own.clone()], subscribe: vec![own] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::Protocol;

    fn info(client_id: &str) -> ConnectInfo {
        ConnectInfo {
            client_id: client_id.to_owned(),
            generated_id: false,
            username: None,
            password: None,
            origin: broker::Origin {
                peer: "127.0.0.1:1".parse().unwrap(),
                transport: broker::Transport::Tcp,
                certificate: None,
            },
            protocol: Protocol::V311,
        }
    }

    #[test]
    fn a_terminal_speaks_under_its_own_id_only() {
        let terminal = principal(&info("t1")).unwrap();
        assert_eq!(terminal.kind, PrincipalKind::Terminal);
        assert!(terminal.publish[0].matches("lift/v1/350102/t1/telemetry"));
        assert!(!terminal.publish[0].matches("lift/v1/350102/t2/telemetry"));
        assert_eq!(principal(&info("a/b")).unwrap_err(), Refusal::BadClientId);
        assert_eq!(principal(&info("t+")).unwrap_err(), Refusal::BadClientId);
    }

    #[test]
    fn an_integration_publishes_nothing() {
        let integration = principal(&info("integration-1")).unwrap();
        assert_eq!((integration.kind, integration.publish.len()), (PrincipalKind::Integration, 0));
    }
}
