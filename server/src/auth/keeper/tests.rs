use broker::{Origin, PrincipalKind, Protocol, Transport};

use super::*;

const NOON: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

struct Fixture {
    keeper: Gatekeeper,
    settled: mpsc::Receiver<(TerminalId, String)>,
    snapshot: AccessSnapshot,
}

fn stored(secret: &str) -> Arc<str> {
    secret::hash(secret.as_bytes(), Strength::Generated).unwrap().into()
}

impl Fixture {
    /// Terminal `t1` and account `board` with their names as secrets; `cert` has none; all in 350102.
    fn new() -> Self {
        let (sender, settled) = mpsc::channel(4);
        let keeper = Gatekeeper::new(AuthMetrics::default(), sender).unwrap();
        let area = "350102".parse().unwrap();
        let mut snapshot = AccessSnapshot::default();
        for (id, secret) in [("t1", Some("t1")), ("cert", None)] {
            let credential = secret.map(|secret| Credential { hash: stored(secret), previous: None });
            let access = TerminalAccess { area, enabled: true, credential };
            snapshot.terminals.insert(TerminalId::new(id).unwrap(), access);
        }
        let account = AccountRecord {
            name: "board".into(),
            hash: stored("board"),
            areas: vec![area],
            enabled: true,
            created: NOON,
            changed: NOON,
        };
        snapshot.accounts.insert("board".into(), account);
        keeper.install(snapshot.clone());
        Self { keeper, settled, snapshot }
    }

    async fn connect(&self, info: &ConnectInfo) -> Result<Principal, Refused> {
        self.keeper.decide(info, NOON).await
    }

    fn terminal(&mut self, id: &str) -> &mut TerminalAccess {
        self.snapshot.terminals.get_mut(id).unwrap()
    }

    /// Puts the changed snapshot in force; which of these connections are to end?
    fn change(&self, ids: &[&str], certificate: Option<&ClientCertificate>) -> Vec<bool> {
        let moved = self.keeper.install(self.snapshot.clone());
        let review = self.keeper.review(moved, NOON);
        let lost = ids.iter().map(|id| review.lost(id, certificate)).collect();
        review.finish();
        lost
    }
}

fn info(client_id: &str, username: Option<&str>, password: Option<&str>) -> ConnectInfo {
    ConnectInfo {
        client_id: client_id.to_owned(),
        generated_id: client_id.starts_with("anonymous"),
        username: username.map(ToOwned::to_owned),
        password: password.map(|password| password.to_owned().into()),
        origin: Origin { peer: "127.0.0.1:1".parse().unwrap(), transport: Transport::Tcp, certificate: None },
        protocol: Protocol::V5,
    }
}

fn certificate(name: &str) -> ClientCertificate {
    ClientCertificate { common_name: name.to_owned(), serial: "1".to_owned() }
}

fn with_certificate(client_id: &str, name: &str) -> ConnectInfo {
    let mut info = info(client_id, None, None);
    info.origin.transport = Transport::Tls;
    info.origin.certificate = Some(Arc::new(certificate(name)));
    info
}

#[tokio::test]
async fn nobody_comes_in_before_the_first_reading() {
    let (sender, _settled) = mpsc::channel(1);
    let keeper = Gatekeeper::new(AuthMetrics::default(), sender).unwrap();
    let refused = keeper.decide(&info("t1", None, Some("t1")), NOON).await.unwrap_err();
    assert_eq!(refused.outside(), Refusal::Unavailable);
}

#[tokio::test]
async fn a_terminal_proves_itself_by_its_secret() {
    let fixture = Fixture::new();
    for username in [None, Some(""), Some("t1")] {
        let principal = fixture.connect(&info("t1", username, Some("t1"))).await.unwrap();
        assert_eq!(principal.kind, PrincipalKind::Terminal);
    }
    // The wrong secret, none, an unknown id, one without a secret, another's name: the client is told the same.
    for wrong in [
        info("t1", None, Some("t2")),
        info("t1", None, Some("")),
        info("t1", None, None),
        info("t9", None, Some("t1")),
        info("cert", None, Some("t1")),
        info("t1", Some("t9"), Some("t1")),
        info("anonymous-1", None, Some("t1")),
        info("t1", None, Some(&"x".repeat(2_000))),
    ] {
        assert_eq!(fixture.connect(&wrong).await.unwrap_err(), Refused::Credentials, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_secret_that_fitted_is_remembered_and_a_wrong_one_does_not_profit() {
    let fixture = Fixture::new();
    let right = info("t1", None, Some("t1"));
    fixture.connect(&right).await.unwrap();
    let holder = Holder::Terminal("t1".into());
    let digest = fixture.keeper.digest(&holder, b"t1");
    assert!(fixture.keeper.remembered(&holder, &digest).is_some());
    assert!(fixture.keeper.remembered(&holder, &fixture.keeper.digest(&holder, b"t2")).is_none());
    assert_ne!(fixture.keeper.digest(&Holder::Account("t1".into()), b"t1"), digest);
    fixture.connect(&right).await.unwrap();
    fixture.connect(&info("t1", None, Some("t2"))).await.unwrap_err();
    fixture.connect(&right).await.unwrap();
}

#[tokio::test]
async fn a_certificate_speaks_for_the_terminal_it_names() {
    let mut fixture = Fixture::new();
    fixture.connect(&with_certificate("cert", "cert")).await.unwrap();
    fixture.connect(&with_certificate("t1", "t1")).await.unwrap();
    let refused = fixture.connect(&with_certificate("t1", "cert")).await.unwrap_err();
    assert_eq!(refused, Refused::Certificate);
    let mut both = with_certificate("t1", "cert");
    both.password = Some("t1".into());
    assert_eq!(fixture.connect(&both).await.unwrap_err(), Refused::Certificate, "two names");
    let refused = fixture.connect(&with_certificate("t9", "t9")).await.unwrap_err();
    assert_eq!(refused, Refused::Unregistered);
    fixture.terminal("cert").enabled = false;
    fixture.change(&[], None);
    assert_eq!(fixture.connect(&with_certificate("cert", "cert")).await.unwrap_err(), Refused::Disabled);
}

#[tokio::test]
async fn an_account_uses_its_own_client_ids_only() {
    let mut fixture = Fixture::new();
    for id in ["board", "board-1", "board/a/b", "anonymous-7"] {
        let principal = fixture.connect(&info(id, Some("board"), Some("board"))).await.unwrap();
        assert_eq!(principal.kind, PrincipalKind::Integration, "{id}");
    }
    for id in ["t1", "boardroom", "other-board", "Board"] {
        let refused = fixture.connect(&info(id, Some("board"), Some("board"))).await.unwrap_err();
        assert_eq!(refused, Refused::ClientId, "{id}");
    }
    let refused = fixture.connect(&info("board", Some("board"), Some("wrong"))).await.unwrap_err();
    assert_eq!(refused, Refused::Credentials);
    // A terminal of that id goes first.
    let taken = fixture.snapshot.terminals[&TerminalId::new("cert").unwrap()].clone();
    fixture.snapshot.terminals.insert(TerminalId::new("board-1").unwrap(), taken);
    fixture.change(&[], None);
    let refused = fixture.connect(&info("board-1", Some("board"), Some("board"))).await.unwrap_err();
    assert_eq!(refused, Refused::ClientId);
}

#[tokio::test]
async fn a_change_ends_the_connections_it_concerns_and_no_others() {
    let mut fixture = Fixture::new();
    fixture.connect(&info("t1", None, Some("t1"))).await.unwrap();
    fixture.connect(&info("board-1", Some("board"), Some("board"))).await.unwrap();
    fixture.connect(&info("anonymous-7", Some("board"), Some("board"))).await.unwrap();
    let all = ["t1", "board-1", "anonymous-7"];
    assert_eq!(fixture.change(&all, None), [false, false, false], "nothing changed");
    assert_eq!(fixture.change(&all, None), [false, false, false], "nor now");

    fixture.terminal("t1").enabled = false;
    assert_eq!(fixture.change(&all, None), [true, false, false]);
    fixture.terminal("t1").enabled = true;
    fixture.terminal("t1").area = "350103".parse().unwrap();
    assert_eq!(fixture.change(&all, None), [true, false, false], "its topics have moved");
    assert_eq!(fixture.change(&all, None), [false, false, false]);

    fixture.terminal("t1").credential = Some(Credential { hash: stored("new"), previous: None });
    let own = certificate("t1");
    let by_certificate = fixture.change(&["t1", "anonymous-7"], Some(&own));
    assert_eq!(by_certificate, [false, false], "one with a certificate does not need it");
    assert_eq!(fixture.change(&all, None), [true, false, false], "rotated at once");

    fixture.snapshot.accounts.get_mut("board").unwrap().areas.clear();
    assert_eq!(fixture.change(&all[1..], None), [true, true]);
    fixture.snapshot.accounts.get_mut("board").unwrap().enabled = false;
    assert_eq!(fixture.change(&all[1..], None), [true, true]);
    fixture.snapshot.accounts.clear();
    assert_eq!(fixture.change(&all[1..], None), [true, true]);
    fixture.snapshot.terminals.clear();
    assert_eq!(fixture.change(&["t1"], Some(&own)), [true], "removed");
}

#[tokio::test]
async fn an_old_secret_is_good_until_its_time_and_the_new_one_settles_it() {
    let mut fixture = Fixture::new();
    let new = stored("new");
    let old = fixture.terminal("t1").credential.clone().unwrap().hash;
    let later = Timestamp::from_micros(NOON.micros() + 1_000_000);
    fixture.terminal("t1").credential =
        Some(Credential { hash: new.clone(), previous: Some((old.clone(), later)) });
    fixture.change(&[], None);
    fixture.connect(&info("t1", None, Some("t1"))).await.unwrap();
    assert_eq!(fixture.change(&["t1"], None), [false], "the old one is still good");
    assert!(fixture.settled.try_recv().is_err());
    fixture.connect(&info("t1", None, Some("new"))).await.unwrap();
    let (id, hash) = fixture.settled.try_recv().unwrap();
    assert_eq!((id.as_str(), hash.as_str()), ("t1", &*new));
    let refused = fixture.connect(&info("t1", None, Some("t1"))).await.unwrap_err();
    assert_eq!(refused, Refused::Credentials, "the new one was used");
}

#[tokio::test]
async fn an_old_secret_that_was_never_replaced_ends_with_its_time() {
    let mut fixture = Fixture::new();
    let new = stored("new");
    let old = fixture.terminal("t1").credential.clone().unwrap().hash;
    fixture.connect(&info("t1", None, Some("t1"))).await.unwrap();
    fixture.terminal("t1").credential = Some(Credential { hash: new, previous: Some((old, NOON)) });
    assert_eq!(fixture.change(&["t1"], None), [true], "its time is over");
    fixture.connect(&info("t1", None, Some("t1"))).await.unwrap_err();
}

#[tokio::test]
async fn unknown_ids_cost_as_much_as_known_ones() {
    let mut fixture = Fixture::new();
    let looks = |fixture: &Fixture| {
        let access = fixture.keeper.access();
        (0..1_000).filter(|n| access.looks_chosen(&fixture.keeper.key, &format!("u{n}"))).count()
    };
    assert_eq!(looks(&fixture), 0, "all known ones are fast");
    let slow: Arc<str> = secret::hash(b"x", Strength::Chosen).unwrap().into();
    fixture.terminal("cert").credential = Some(Credential { hash: slow, previous: None });
    fixture.change(&[], None);
    let half = looks(&fixture);
    assert!((300..700).contains(&half), "half of the known ones are slow: {half}");
}

#[tokio::test]
async fn connections_without_a_name_are_forgotten() {
    let fixture = Fixture::new();
    fixture.connect(&info("anonymous-7", Some("board"), Some("board"))).await.unwrap();
    assert_eq!(fixture.change(&["anonymous-7"], None), [false]);
    fixture.change(&[], None);
    assert!(lock(&fixture.keeper.unnamed).is_empty());
}
