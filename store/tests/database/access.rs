//! Who may connect, against the real database.

use std::time::Duration;

use domain::{Area, DeviceKind, ElevatorId, TerminalId, Timestamp};
use store::testing::TestDatabase;
use store::{AccessError, Database, NewAccount, NewTerminal, Registry, Rotation};

use crate::common::{count, terminal};

fn area(text: &str) -> Area {
    text.parse().unwrap()
}

/// Not a real hash: the store only checks its kind.
fn hash(secret: &str) -> String {
    format!("$argon2id$v=19$m=64,t=1,p=1$c2FsdA${secret}")
}

fn new(id: &str) -> NewTerminal {
    NewTerminal {
        id: terminal(id),
        area: area("350102"),
        elevator: None,
        hash: Some(hash(id)),
        profile: None,
        kind: None,
    }
}

fn rotation(id: &str, secret: &str, previous_until: Option<Timestamp>) -> Rotation {
    Rotation { id: terminal(id), hash: hash(secret), previous_until }
}

fn in_hours(hours: i64) -> Timestamp {
    Timestamp::from(time::OffsetDateTime::now_utc() + time::Duration::hours(hours))
}

async fn hashes(database: &Database, id: &str) -> (String, Option<String>) {
    let snapshot = database.access_snapshot().await.unwrap();
    let credential = snapshot.terminals[&terminal(id)].credential.clone().unwrap();
    (credential.hash.to_string(), credential.previous.map(|(hash, _)| hash.to_string()))
}

#[tokio::test]
async fn terminals_speak_profiles_and_serve_kinds_of_devices() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let escalator = NewTerminal {
        profile: Some("bacnet_escalator".into()),
        kind: Some(DeviceKind::Escalator),
        ..new("e1")
    };
    database.terminal_add(&[escalator, new("t1")], "tester").await.unwrap();
    let registry = Registry::load(&database).await.unwrap();
    let of = |registry: &Registry, id: &str| {
        let record = registry.lookup(id).unwrap();
        (record.profile.to_string(), record.device_kind)
    };
    assert_eq!(of(&registry, "e1"), ("bacnet_escalator".into(), DeviceKind::Escalator));
    assert_eq!(of(&registry, "t1"), ("gb24476".into(), DeviceKind::Lift));
    registry.register(&[(terminal("t2"), area("350102")), (terminal("e1"), area("350102"))]).await.unwrap();
    assert_eq!(of(&registry, "e1").1, DeviceKind::Escalator);
    assert_eq!(of(&registry, "t2").1, DeviceKind::Lift);

    let ids = [terminal("t1"), terminal("t2")];
    database.terminal_describe(&ids, Some("exchange"), None, "tester").await.unwrap();
    database.terminal_describe(&ids[..1], None, Some(DeviceKind::Walk), "tester").await.unwrap();
    registry.reload().await.unwrap();
    assert_eq!(of(&registry, "t1"), ("exchange".into(), DeviceKind::Walk));
    assert_eq!(of(&registry, "t2"), ("exchange".into(), DeviceKind::Lift));
    let error =
        database.terminal_describe(&[terminal("nobody")], Some("x"), None, "tester").await.unwrap_err();
    assert!(matches!(&error, AccessError::TerminalUnknown(ids) if ids == &["nobody"]), "{error}");
    assert_eq!(count(&database, "SELECT count(*) FROM audit WHERE action = 'terminal.describe'").await, 2);
}

#[tokio::test]
async fn terminals_are_added_all_or_none() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let many: Vec<NewTerminal> = (0..5_000).map(|n| new(&format!("t{n}"))).collect();
    database.terminal_add(&many, "tester").await.unwrap();
    let snapshot = database.access_snapshot().await.unwrap();
    assert_eq!(snapshot.terminals.len(), 5_000);
    let one = &snapshot.terminals[&terminal("t4999")];
    assert_eq!((one.area, one.enabled), (area("350102"), true));
    assert_eq!(&*one.credential.as_ref().unwrap().hash, hash("t4999"));
    assert_eq!(count(&database, "SELECT count(DISTINCT elevator_id) FROM terminal").await, 5_000);

    let error = database.terminal_add(&[new("u1"), new("t7"), new("t3")], "tester").await.unwrap_err();
    assert!(matches!(&error, AccessError::TerminalExists(ids) if ids == &["t3", "t7"]), "{error}");
    let lost = NewTerminal { elevator: Some(ElevatorId(999_999)), ..new("u2") };
    let error = database.terminal_add(&[new("u1"), lost], "tester").await.unwrap_err();
    assert!(matches!(&error, AccessError::ElevatorUnknown(ids) if ids == &[999_999]), "{error}");
    assert_eq!(count(&database, "SELECT count(*) FROM terminal").await, 5_000);
    assert_eq!(count(&database, "SELECT count(*) FROM elevator").await, 5_000);
    assert_eq!(count(&database, "SELECT count(*) FROM audit WHERE action = 'terminal.add'").await, 1);
}

#[tokio::test]
async fn a_second_terminal_may_serve_a_known_elevator() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    database.terminal_add(&[new("t1")], "tester").await.unwrap();
    let elevator = database.terminal_show("t1").await.unwrap().elevator_id;
    let second = NewTerminal { elevator: Some(elevator), hash: None, ..new("t2") };
    database.terminal_add(&[second], "tester").await.unwrap();
    let shown = database.terminal_show("t2").await.unwrap();
    assert_eq!((shown.elevator_id, shown.credential, shown.credential_changed), (elevator, None, None));
    let elsewhere = database.terminal_list(Some(area("360000"))).await.unwrap();
    assert!(elsewhere.is_empty());
    let here = database.terminal_list(Some(area("350000"))).await.unwrap();
    assert_eq!(here.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["t1", "t2"]);
}

#[tokio::test]
async fn an_unknown_terminal_is_named_and_nothing_changes() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    database.terminal_add(&[new("t1")], "tester").await.unwrap();
    let both: Vec<TerminalId> = vec![terminal("t1"), terminal("t9")];
    let error = database.terminal_enable(&both, false, "tester").await.unwrap_err();
    assert!(matches!(&error, AccessError::TerminalUnknown(ids) if ids == &["t9"]), "{error}");
    assert!(database.terminal_show("t1").await.unwrap().enabled);
    database.terminal_enable(&both[..1], false, "tester").await.unwrap();
    assert!(!database.terminal_show("t1").await.unwrap().enabled);
    assert!(!Registry::load(&database).await.unwrap().lookup("t1").unwrap().enabled);
    assert!(database.terminal_rotate(&[rotation("t9", "x", None)], "tester").await.is_err());
    assert!(database.terminal_show("t9").await.is_err());
}

#[tokio::test]
async fn an_old_secret_is_good_until_the_new_one_is_used() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    database.terminal_add(&[new("t1")], "tester").await.unwrap();
    let (old, second, third) = (hash("t1"), hash("second"), hash("third"));
    database.terminal_rotate(&[rotation("t1", "second", Some(in_hours(2)))], "tester").await.unwrap();
    assert_eq!(hashes(&database, "t1").await, (second.clone(), Some(old.clone())));
    let until = database.terminal_show("t1").await.unwrap().credential.unwrap().previous.unwrap().1;

    // The second one never reached the terminal: what it uses stays good, but no longer than promised.
    database.terminal_rotate(&[rotation("t1", "third", Some(in_hours(9)))], "tester").await.unwrap();
    assert_eq!(hashes(&database, "t1").await, (third.clone(), Some(old)));
    let again = database.terminal_show("t1").await.unwrap().credential.unwrap().previous.unwrap().1;
    assert_eq!(again, until);

    database.terminal_settle(&[(terminal("t1"), second)]).await.unwrap();
    assert!(hashes(&database, "t1").await.1.is_some(), "another secret than the new one was used");
    database.terminal_settle(&[(terminal("t1"), third.clone())]).await.unwrap();
    assert_eq!(hashes(&database, "t1").await, (third, None));

    database.terminal_rotate(&[rotation("t1", "fourth", Some(in_hours(2)))], "tester").await.unwrap();
    database.terminal_rotate(&[rotation("t1", "fifth", None)], "tester").await.unwrap();
    assert_eq!(hashes(&database, "t1").await, (hash("fifth"), None), "at once");
}

#[tokio::test]
async fn a_terminal_without_a_secret_gets_one_by_rotation() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    database.terminal_add(&[NewTerminal { hash: None, ..new("t1") }], "tester").await.unwrap();
    database.terminal_rotate(&[rotation("t1", "first", Some(in_hours(2)))], "tester").await.unwrap();
    assert_eq!(hashes(&database, "t1").await, (hash("first"), None));
}

#[tokio::test]
async fn accounts_are_made_changed_and_removed() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let account =
        NewAccount { name: "board".into(), hash: hash("one"), areas: vec![area("350000"), area("360102")] };
    database.account_add(&account, "tester").await.unwrap();
    let error = database.account_add(&account, "tester").await.unwrap_err();
    assert!(matches!(error, AccessError::AccountExists(_)), "{error}");
    database.account_enable("board", false, "tester").await.unwrap();
    database.account_rotate("board", &hash("two"), "tester").await.unwrap();
    let listed = database.account_list().await.unwrap();
    let board = &database.access_snapshot().await.unwrap().accounts["board"];
    assert_eq!(&listed, std::slice::from_ref(board));
    assert_eq!((&*board.hash, board.enabled), (hash("two").as_str(), false));
    assert_eq!(board.areas, account.areas);
    database.account_remove("board", "tester").await.unwrap();
    let error = database.account_remove("board", "tester").await.unwrap_err();
    assert!(matches!(error, AccessError::AccountUnknown(_)), "{error}");
    assert_eq!(count(&database, "SELECT count(*) FROM audit WHERE subject = 'board'").await, 4);
}

#[tokio::test]
async fn what_is_no_hash_and_no_name_is_refused() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let plain = NewTerminal { hash: Some("secret".into()), ..new("t1") };
    assert!(database.terminal_add(&[plain], "tester").await.is_err());
    let named = |name: &str| NewAccount { name: name.into(), hash: hash("x"), areas: vec![] };
    for bad in ["", "a-b", "a/b", "A", "1a", "a b"] {
        assert!(database.account_add(&named(bad), "tester").await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_listener_hears_of_every_change() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut listener = database.access_listen().await.unwrap();
    let mut heard = async |what: &str| {
        let changed = tokio::time::timeout(Duration::from_secs(30), listener.changed()).await;
        changed.unwrap_or_else(|_| panic!("nothing heard of: {what}")).unwrap();
    };
    database.terminal_add(&[new("t1"), new("t2")], "tester").await.unwrap();
    heard("added").await;
    database.terminal_enable(&[terminal("t1")], false, "tester").await.unwrap();
    heard("disabled").await;
    database.terminal_rotate(&[rotation("t1", "second", None)], "tester").await.unwrap();
    heard("rotated").await;
    sqlx::query("UPDATE terminal SET area = 1 WHERE terminal_id = 't2'")
        .execute(database.pool())
        .await
        .unwrap();
    heard("moved").await;
    sqlx::query("DELETE FROM terminal WHERE terminal_id = 't2'").execute(database.pool()).await.unwrap();
    heard("removed").await;
    let account = NewAccount { name: "board".into(), hash: hash("x"), areas: vec![] };
    database.account_add(&account, "tester").await.unwrap();
    heard("account").await;
    assert_eq!(
        count(&database, "SELECT count(*) FROM credential").await,
        1,
        "a secret goes with its terminal"
    );

    // Cut off, it comes back, and says so because it may have missed something.
    let cut = "SELECT pg_terminate_backend(pid)
               FROM pg_stat_activity
               WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    sqlx::query(cut).execute(database.pool()).await.unwrap();
    heard("cut").await;
    database.account_remove("board", "tester").await.unwrap();
    heard("removed account").await;
}
