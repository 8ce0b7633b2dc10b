//! The HTTP side as its users meet it: over a socket, with a real database.
#![allow(clippy::unwrap_used)] // clippy excepts the tests themselves, not their helpers

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use domain::{
    Arrival, ArrivalNo, BootId, Code, EventBatch, EventState, FaultEvent, Message, Seq, TerminalId, Timestamp,
};
use serde_json::{Value, json};
use store::{Acknowledgement, Database, Incoming, Item, StoreConfig, StoreMetrics, Writer};
use support::{Server, alarm, at, elevator_state, fill};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use web::{Check, limits};

/// A server for which no database answers.
async fn without_database(checks: Vec<Check>) -> Server {
    let config = StoreConfig { connect_timeout: Duration::from_millis(200), ..StoreConfig::default() };
    let nobody = Database::lazy("postgres://nobody@127.0.0.1:1/nothing", config).unwrap();
    Server::start(nobody, checks).await
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let up = Arc::new(AtomicBool::new(false));
    let seen = up.clone();
    let database = Check::new("database", move || {
        if seen.load(Ordering::Relaxed) { Ok(()) } else { Err("no connection for 7 s".to_owned()) }
    });
    let server = without_database(vec![Check::new("broker", || Ok(())), database]).await;

    assert_eq!(server.get("/livez").await.status, 200);
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        json!({ "ready": false, "checks": [
            { "name": "broker", "ok": true },
            { "name": "database", "ok": false, "reason": "no connection for 7 s" },
        ]})
    );
    assert!(server.get("/").await.body.contains("database: no connection for 7 s"));

    up.store(true, Ordering::Relaxed);
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, &answer.json()["ready"]), (200, &json!(true)));
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let server = without_database(vec![]).await;
    server.get("/livez").await;
    server.get("/nowhere").await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.body.contains("web_requests_total{status=\"2xx\"} 1\n"), "{}", answer.body);
    assert!(answer.body.contains("web_requests_total{status=\"4xx\"} 1\n"), "{}", answer.body);
    assert!(answer.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn errors_are_problems_that_tell_the_way_out() {
    let server = without_database(vec![]).await;
    let check = async |method: &str, path: &str, status: u16, detail: &str| {
        let answer = server.request(method, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        let problem = answer.json();
        assert_eq!(problem["status"], json!(status), "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{path}: {}", answer.body);
        answer
    };
    check("GET", "/nowhere", 404, "nothing is at /nowhere; /api/v1/openapi.json lists what is").await;
    check("POST", "/api/v1/alarms", 405, "everything is read with GET").await;
    check("GET", "/api/v1/alarms?limit=501", 400, "limit is 501, but must lie between 1 and 500").await;
    check("GET", "/api/v1/alarms?limit=many", 400, "limit: invalid digit").await;
    check("GET", "/api/v1/alarms?aera=350102", 400, "unknown field `aera`").await;
    check("GET", "/api/v1/alarms?severity_min=5", 400, "severity_min is '5', but must be like S1, S2, S3")
        .await;
    check("GET", "/api/v1/alarms?cursor=x", 400, "cursor is 'x', but must be like the `next` of a page")
        .await;
    check("GET", "/api/v1/alarms/x", 400, "alarm_id is 'x'").await;
    check("GET", "/api/v1/elevators?area=35", 400, "area is '35', but must be like 350102").await;
    check("GET", "/api/v1/elevators/x", 400, "elevator_id is 'x'").await;
    let long = format!("/api/v1/alarms?area={}", "1".repeat(limits::URL_BYTES_MAX));
    check("GET", &long, 414, "2048 are allowed").await;
    let away = check("GET", "/api/v1/alarms", 503, "the database does not answer now").await;
    assert_eq!(away.header("retry-after"), "5");
}

#[tokio::test]
async fn the_page_does_not_wait_for_a_database_that_is_away() {
    // Takes connections and never answers: the worst kind of away.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://nobody@{}/nothing", silent.local_addr().unwrap());
    let config = StoreConfig { connect_timeout: Duration::from_mins(2), ..StoreConfig::default() };
    let server = Server::start(Database::lazy(&url, config).unwrap(), vec![]).await;
    let began = std::time::Instant::now();
    let page = server.get("/").await;
    // After `PAGE_QUERY_TIME_MAX`, and what a slow machine adds: far from the two minutes of a connection.
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    assert_eq!(page.status, 200);
    assert!(page.body.contains("open alarms are not known"), "{}", page.body);
    assert!(page.body.contains("12,345"), "what does not need the database is shown");
}

#[tokio::test]
async fn every_documented_path_answers_and_every_answer_is_guarded() {
    let (_kept, database) = support::database().await;
    let server = Server::start(database, vec![]).await;
    let document = server.get("/api/v1/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 9, "{paths:?}");
    let operations: HashSet<&str> =
        paths.values().map(|path| path["get"]["operationId"].as_str().unwrap()).collect();
    assert_eq!(operations.len(), paths.len(), "each operation has a name of its own: {operations:?}");
    for path in
        paths.keys().map(String::as_str).chain(["/", "/status", "/assets/status.js", "/assets/icon.svg"])
    {
        let path = path.replace("{elevator_id}", "4711");
        let path = path.replace("{alarm_id}", "18081f82-f75c-55a7-bc4c-e282e51ede82");
        let path = path.replace("{name}", "telemetry.json");
        let answer = server.get(&path).await;
        let expected = if path.ends_with(char::is_numeric) { 404 } else { 200 };
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
        assert!(answer.header("content-security-policy").starts_with("default-src 'self';"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(server.request("HEAD", &path).await.status, expected, "{path}");
    }
    for list in ["elevators", "alarms"] {
        let parameters =
            document["paths"][format!("/api/v1/{list}")]["get"]["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|parameter| parameter["name"] == "cursor"), "{list}");
    }
}

/// All items of a list, page by page.
async fn pages(server: &Server, path: &str, limit: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let separator = if path.contains('?') { '&' } else { '?' };
        let page = server.get(&format!("{path}{separator}limit={limit}{cursor}")).await.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        all.extend_from_slice(items);
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn column(items: &[Value], name: &str) -> Vec<Value> {
    items.iter().map(|item| item[name].clone()).collect()
}

#[tokio::test]
async fn elevators_are_listed_page_by_page() {
    let (_kept, database) = support::database().await;
    let areas = ["350102", "350103", "350200", "350102", "360100", "350102", "350121"];
    let ids = fill(&database, &areas).await;
    let state = elevator_state(ids[1], "350103");
    store::AlarmCommitter::new(database.clone())
        .checkpoint(std::slice::from_ref(&state), state.arrival.no)
        .await
        .unwrap();
    let server = Server::start(database, vec![]).await;

    let ids: Vec<Value> = ids.iter().map(|id| json!(id.0)).collect();
    for limit in [1, 3, 7, 500] {
        assert_eq!(column(&pages(&server, "/api/v1/elevators", limit).await, "elevator_id"), ids);
    }
    let city = pages(&server, "/api/v1/elevators?area=350100", 2).await;
    assert_eq!(column(&city, "area"), ["350102", "350103", "350102", "350102", "350121"]);

    let one = server.get(&format!("/api/v1/elevators/{}", ids[1])).await.json();
    assert_eq!((&one["elevator_id"], &one["area"]), (&ids[1], &json!("350103")));
    let latest = &one["state"];
    assert_eq!(latest["terminal_id"], "t1");
    assert_eq!(latest["time"], "2026-11-22T00:00:00.123Z");
    assert_eq!((&latest["floor"], &latest["passengers"]), (&json!("<b>"), &json!(true)));
    assert_eq!((&latest["service_mode"], &latest["car_direction"]), (&json!(1), &json!(2)));
    assert_eq!((&latest["people"], &latest["code_slugs"]), (&json!(true), &json!(["unintended_movement"])));
    assert_eq!((&latest["position_mm"], &latest["load_kg"]), (&json!(33_250), &Value::Null));
    assert!(latest["age_ms"].as_i64().unwrap() >= 0);
    assert!(latest.get("engine").is_none(), "the engine's memory is its own");
    let silent = server.get(&format!("/api/v1/elevators/{}", ids[0])).await.json();
    assert_eq!(silent["faults"], json!([]));
    assert_eq!(silent["state"], Value::Null);
    assert_eq!(
        silent["terminals"],
        json!([{
            "terminal_id": "t0", "presence": null, "reason": null, "since": null, "last_seen": null,
        }])
    );
}

#[tokio::test]
async fn faults_that_last_are_shown_with_their_elevator() {
    let (_kept, database) = support::database().await;
    let ids = fill(&database, &["350102"]).await;
    let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let says = |no: i64, slug: &str, state| {
        let arrived = noon.plus(Duration::from_secs(no.unsigned_abs()));
        let time = arrived.minus(Duration::from_hours(2));
        let code = Code::canonical(slug).unwrap();
        let events = vec![FaultEvent { seq: Seq(no), time, code, state }];
        let batch = EventBatch { boot: BootId(7), sent: Some(time), events, active: None };
        Item::Message(Incoming {
            elevator_id: ids[0],
            terminal_id: TerminalId::new("t0").unwrap(),
            arrival: Arrival { no: ArrivalNo(no), at: arrived },
            message: Arc::new(Message::Event(batch)),
        })
    };
    let mut writer = Writer::new(&database, Arc::new(StoreMetrics::default()));
    let (open, close) = (EventState::Open, EventState::Close);
    for (no, slug, state) in [
        (1, "unknown_code", open),
        (2, "stop_outside_zone", open),
        (3, "power_off", open),
        (4, "power_off", close),
    ] {
        writer.commit(&[says(no, slug, state)]).await.unwrap();
    }
    let server = Server::start(database, vec![]).await;
    let one = server.get(&format!("/api/v1/elevators/{}", ids[0])).await.json();
    let mut faults = one["faults"].as_array().unwrap().clone();
    assert_eq!(faults[0]["began"], "2026-11-22T12:00:01.000Z", "by the server's clock");
    faults.sort_by_key(|fault| fault["kind"].to_string());
    assert_eq!(column(&faults, "kind"), ["clock_skew", "stop_outside_zone", "unknown_code"]);
    assert_eq!(column(&faults, "opened_by"), ["server", "event", "event"]);
    assert_eq!(column(&faults, "terminal_id"), ["t0", "t0", "t0"]);
}

#[tokio::test]
async fn terminals_are_shown_as_online_away_or_offline() {
    let (_kept, database) = support::database().await;
    let ids = fill(&database, &["350102", "350102", "350102", "350102"]).await;
    let now = domain::Timestamp::from(time::OffsetDateTime::now_utc());
    let ago = |seconds| now.minus(std::time::Duration::from_secs(seconds));
    let record = |name: &str, online, since| store::PresenceRecord {
        terminal_id: domain::TerminalId::new(name).unwrap(),
        online,
        reason: if online { "connected".into() } else { "keep_alive".into() },
        since,
        last_seen: since,
        arrival_no: domain::ArrivalNo(1),
    };
    let records =
        [record("t0", true, ago(9_000)), record("t1", false, ago(20)), record("t2", false, ago(181))];
    database.presence_store(&records).await.unwrap();
    let server = Server::start(database, vec![]).await;
    let mut shown = Vec::new();
    for elevator in pages(&server, "/api/v1/elevators", 3).await {
        shown.push(elevator["terminals"][0]["presence"].clone());
    }
    assert_eq!(shown, [json!("online"), json!("away"), json!("offline"), Value::Null]);
    let one = server.get(&format!("/api/v1/elevators/{}", ids[2])).await.json();
    let terminal = &one["terminals"][0];
    assert_eq!((&terminal["reason"], &terminal["terminal_id"]), (&json!("keep_alive"), &json!("t2")));
    let millis = domain::Timestamp::from_millis(ago(181).millis()).to_string();
    assert_eq!(terminal["last_seen"].as_str().unwrap()[..19], millis[..19]);
}

#[tokio::test]
async fn alarms_are_filtered_and_listed_newest_first() {
    let (_kept, database) = support::database().await;
    let ids = fill(&database, &["350102", "350200"]).await;
    let mut committer = store::AlarmCommitter::new(database.clone());
    // Five of one moment, so that only the id orders them, then graver and later ones.
    let mut events = Vec::new();
    for seq in 1..=5 {
        events.push(alarm(ids[0], "350102", "door_close_fault", seq, 10));
    }
    let mut cleared = alarm(ids[1], "350200", "position_lost", 6, 20);
    cleared.alarm.cleared = Some(at(21));
    events.push(cleared);
    let trapped = alarm(ids[1], "350200", "entrapment_between_floors", 7, 30);
    let trapped_id = trapped.alarm.id;
    events.push(trapped);
    committer.alarm_commit(&events, &[]).await.unwrap();
    let acknowledgement = Acknowledgement {
        alarm_id: trapped_id,
        actor: "Wang Xiaoming".to_owned(),
        idempotency_key: "k1".to_owned(),
        note: String::new(),
        at: at(31),
    };
    database.alarm_acknowledge(&acknowledgement).await.unwrap();
    let server = Server::start(database, vec![]).await;

    let all = pages(&server, "/api/v1/alarms", 500).await;
    assert_eq!(all.len(), 7);
    for limit in [1, 2, 3] {
        assert_eq!(pages(&server, "/api/v1/alarms", limit).await, all, "by pages of {limit}");
    }
    let raised = column(&all, "raised");
    assert!(raised.windows(2).all(|pair| pair[0].as_str() >= pair[1].as_str()), "{raised:?}");

    let count = async |query: &str| pages(&server, &format!("/api/v1/alarms?{query}"), 3).await.len();
    assert_eq!(count("open_only=true").await, 6);
    assert_eq!(count("severity_min=S1").await, 1);
    assert_eq!(count("severity_min=S3").await, 7);
    assert_eq!(count("area=350102").await, 5);
    assert_eq!(count("area=350000").await, 7);
    assert_eq!(count("area=360000").await, 0);
    assert_eq!(count(&format!("elevator_id={}", ids[1])).await, 2);
    assert_eq!(count(&format!("elevator_id={}&open_only=true", ids[1])).await, 1);

    let answer = server.get(&format!("/api/v1/alarms/{trapped_id}")).await;
    let one = answer.json();
    assert_eq!(one["alarm_id"], json!(trapped_id));
    assert_eq!(
        (&one["kind"], &one["kind_chinese"]),
        (&json!("entrapment_between_floors"), &json!("非平层困人"))
    );
    assert_eq!((&one["severity"], &one["state"]), (&json!("S1"), &json!("confirmed")));
    assert_eq!(one["acknowledged"], "1970-01-01T00:00:31.000Z");
    assert_eq!(one["evidence"][0]["trace"], "a < b & c");
    assert_eq!(column(one["events"].as_array().unwrap(), "change"), ["raised", "acknowledged"]);
    assert!(!answer.body.contains("Wang"), "names of people are not in the open API");
}

#[tokio::test]
async fn the_page_shows_the_gravest_first_and_needs_nothing_from_outside() {
    let (_kept, database) = support::database().await;
    let ids = fill(&database, &["350102", "350102"]).await;
    let events =
        [alarm(ids[0], "350102", "door_close_fault", 1, 10), alarm(ids[1], "350102", "entrapment", 2, 20)];
    store::AlarmCommitter::new(database.clone()).alarm_commit(&events, &[]).await.unwrap();
    let server = Server::start(database, vec![]).await;

    let page = server.get("/").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let place = |text: &str| page.body.find(text).unwrap_or_else(|| panic!("{text} is not in {}", page.body));
    assert!(place("困人") < place("关门故障"));
    assert!(place("people shut in") < place("door does not close"));
    place("确认");
    place("12,345"); // terminals connected
    place("9,876,543"); // rows committed
    assert!(page.body.contains("&lt;b&gt;") && !page.body.contains("<b>"), "labels of terminals are escaped");
    for asset in ["", "/assets/status.css", "/assets/status.js"] {
        let text = if asset.is_empty() { page.body.clone() } else { server.get(asset).await.body };
        assert!(
            !text.contains("http://") && !text.contains("https://") && !text.contains("//cdn"),
            "{asset}"
        );
    }
    assert!(
        !page.body.contains("style=") && !page.body.contains("onclick"),
        "the policy forbids inline code"
    );
    // What the script puts into the page is what the page began with.
    let fragment = server.get("/status").await.body;
    assert!(fragment.contains("困人") && !fragment.contains("<html"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_before_the_server_ends() {
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    // Stands for a request that takes its time: the answer waits for the test.
    let slow = Check::new("slow", move || {
        entered.send(()).map_err(|error| error.to_string())?;
        released.lock().unwrap().recv().map_err(|error| error.to_string())
    });
    let mut server = without_database(vec![slow]).await;
    let address = server.address;
    let asked = tokio::spawn(async move { support::request(address, "GET", "/readyz").await });
    tokio::task::spawn_blocking(move || has_entered.recv().unwrap()).await.unwrap();
    server.stop.cancel();
    // The listener is closed while the request is still open.
    support::until(async || TcpStream::connect(address).await.is_err()).await;
    assert!(!server.task.is_finished());
    release.send(()).unwrap();
    assert_eq!(asked.await.unwrap().status, 200);
    (&mut server.task).await.unwrap();
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_waits() {
    let server = without_database(vec![]).await;
    let mut idle = Vec::new();
    for _ in 0..limits::CONNECTIONS_MAX {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    // Each has its place once it was answered.
    for stream in &mut idle {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
    }
    let address = server.address;
    let mut waiting = tokio::spawn(async move { support::request(address, "GET", "/livez").await });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "no place is free");
    idle.pop();
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    let server = without_database(vec![]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nx-slow: ").await.unwrap();
    let began = tokio::time::Instant::now();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(began.elapsed() >= limits::HEAD_TIME_MAX && began.elapsed() < limits::HEAD_TIME_MAX * 2);
}

#[tokio::test]
async fn the_health_check_of_the_containers_asks_rightly() {
    let compose = include_str!("../../deploy/compose.yaml");
    let line = compose.lines().find_map(|line| line.trim().strip_prefix("- exec ")).unwrap();
    let check = async |port: u16| {
        let command = format!("exec {}", line.replace("/8080 ", &format!("/{port} ")));
        let status = tokio::process::Command::new("bash").arg("-c").arg(command).status().await;
        status.unwrap().success()
    };
    let ready = without_database(vec![]).await;
    assert!(check(ready.address.port()).await);
    let unready = without_database(vec![Check::new("x", || Err("missing".to_owned()))]).await;
    assert!(!check(unready.address.port()).await);
    // The image's own check says the same in JSON.
    let image = include_str!("../../deploy/Dockerfile");
    assert!(image.contains(&line.replace('\\', "\\\\")), "{line}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = without_database(vec![]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nx-large: {}\r\n\r\n", "x".repeat(limits::BUFFER_BYTES_MAX));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}
