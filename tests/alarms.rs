//! From a fault to a dispatcher's stream.

use std::time::Duration;

use proto::dispatch::v1::dispatch_service_client::DispatchServiceClient;
use proto::dispatch::v1::{self, watch_response};
use store::testing::TestDatabase;
use tonic::transport::Channel;

use crate::harness::{Server, eventually, mosquitto_pub, now, within};

type Client = DispatchServiceClient<Channel>;

pub(crate) async fn client(server: &Server) -> Client {
    let address = format!("http://{}", server.addresses.dispatch);
    eventually("the dispatch API answers", async || {
        DispatchServiceClient::connect(address.clone()).await.ok()
    })
    .await
}

/// A fault event of terminal `terminal`; an S1 fault of a controller needs no timer.
pub(crate) async fn fault(server: &Server, terminal: &str, seq: u32, code: &str, state: &str) {
    let payload = format!(r#"{{"boot":1,"seq":{seq},"time":"{}","code":"{code}","state":"{state}"}}"#, now());
    let topic = format!("lift/v1/350102/{terminal}/event.json");
    let published = mosquitto_pub(server.addresses.broker, terminal, &topic, payload.as_bytes()).await;
    assert!(published.status.success(), "{published:?}");
}

pub(crate) async fn watch(
    client: &mut Client,
    resume_after: Option<i64>,
) -> tonic::Streaming<v1::WatchResponse> {
    let request = v1::WatchRequest { resume_after, ..Default::default() };
    client.watch(request).await.expect("watch").into_inner()
}

/// The next numbered event that is not a repetition.
pub(crate) async fn next_event(stream: &mut tonic::Streaming<v1::WatchResponse>) -> v1::AlarmEvent {
    within("an event on the stream", async {
        loop {
            let response = stream.message().await.expect("the stream lives").expect("the stream goes on");
            if let Some(watch_response::Message::Event(event)) = response.message
                && !event.provisional
                && !event.repeated
            {
                return event;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_entrapment_reaches_the_stream_with_its_reasons() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    let mut client = client(&server).await;
    let mut stream = watch(&mut client, None).await;

    let state = format!(
        r#"{{"boot":1,"seq":1,"time":"{}","service_mode":1,"car_status":0,"door_zone":false,"door_state":2,
            "passengers":true,"floor":"12","codes":[]}}"#,
        now()
    );
    let topic = "lift/v1/350102/t1/telemetry.json";
    assert!(mosquitto_pub(server.addresses.broker, "t1", topic, state.as_bytes()).await.status.success());
    fault(&server, "t1", 2, "entrapment_between_floors", "open").await;

    let event = next_event(&mut stream).await;
    assert_eq!((event.no, event.change), (1, v1::AlarmChange::Raised as i32));
    let alarm = event.alarm.expect("the whole alarm");
    assert_eq!(alarm.kind, "entrapment_between_floors");
    assert_eq!(alarm.severity, v1::Severity::S1 as i32);
    assert_eq!(alarm.terminal_id, "t1");
    assert!(alarm.evidence.iter().any(|line| line.rule == "e3" && !line.trace.is_empty()), "{alarm:?}");

    // The E1 timer of 30 s adds its own evidence, and with it the score that dispatches.
    let event = next_event(&mut stream).await;
    assert_eq!((event.no, event.prev, event.change), (2, 1, v1::AlarmChange::Updated as i32));
    let updated = event.alarm.expect("the whole alarm");
    assert_eq!(updated.id, alarm.id, "one elevator, one alarm");
    assert_eq!((updated.score, updated.state), (70, v1::AlarmState::Confirmed as i32), "{updated:?}");

    let request = v1::AcknowledgeRequest {
        alarm_id: alarm.id.clone(),
        actor: "seat 3".into(),
        idempotency_key: "k1".into(),
        note: String::new(),
    };
    let first = client.acknowledge(request.clone()).await.expect("acknowledge").into_inner();
    let again = client.acknowledge(request).await.expect("acknowledge again").into_inner();
    assert_eq!((first.no, again.no), (3, 3), "the same key gives the first result");
    assert_eq!(next_event(&mut stream).await.change, v1::AlarmChange::Acknowledged as i32);

    let (status, page) = server.get("/api/v1/alarms").await;
    assert!(status == 200 && page.contains(&alarm.id), "{page}");
}

#[tokio::test]
async fn a_cut_watch_resumes_without_gap_or_repeat() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(database.url()).await;
    let mut seen = Vec::new();
    let mut after = 0;
    for round in 0..3 {
        for lift in 0..3 {
            fault(&server, &format!("r{round}-{lift}"), 1, "unintended_movement", "open").await;
        }
        // A new client each time: the one before was cut in the middle. Two of three are read.
        let mut stream = watch(&mut client(&server).await, Some(after)).await;
        for _ in 0..2 {
            let event = next_event(&mut stream).await;
            after = event.no;
            seen.push((event.no, event.prev));
        }
        if round == 1 {
            server.kill();
            server.restart().await;
        }
    }
    let mut stream = watch(&mut client(&server).await, Some(after)).await;
    while after < 9 {
        let event = next_event(&mut stream).await;
        after = event.no;
        seen.push((event.no, event.prev));
    }
    let numbers: Vec<_> = seen.iter().map(|(no, _)| *no).collect();
    assert_eq!(numbers, (1..=9).collect::<Vec<_>>(), "gapless, in order, once each");
    let beyond = v1::WatchRequest { resume_after: Some(1_000_000), ..Default::default() };
    let refused = client(&server).await.watch(beyond).await;
    let status = match refused {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.expect_err("a number that was never given"),
    };
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
}

#[tokio::test]
async fn an_alarm_raised_before_a_kill_is_raised_once() {
    let database = TestDatabase::new().await;
    let mut server = Server::start(database.url()).await;
    fault(&server, "t1", 1, "unintended_movement", "open").await;
    server.kill();
    server.restart().await;
    fault(&server, "t1", 1, "unintended_movement", "open").await;
    fault(&server, "t2", 1, "unintended_movement", "open").await;
    let mut stream = watch(&mut client(&server).await, Some(0)).await;
    let (first, second) = (next_event(&mut stream).await, next_event(&mut stream).await);
    let terminal = |event: v1::AlarmEvent| event.alarm.expect("the alarm").terminal_id;
    assert_eq!((first.no, second.no), (1, 2));
    assert_eq!((terminal(first), terminal(second)), ("t1".to_owned(), "t2".to_owned()));
}

#[tokio::test]
async fn health_is_answered_on_both_ports() {
    let database = TestDatabase::new().await;
    let server = Server::start(database.url()).await;
    assert_eq!(server.get("/livez").await.0, 200);
    assert_eq!(server.get("/readyz").await.0, 200);
    let (status, metrics) = server.get("/metrics").await;
    assert!(status == 200 && metrics.contains("liftwatch_store_rows_stored_total"), "{metrics}");
    let channel = Channel::from_shared(format!("http://{}", server.addresses.dispatch))
        .expect("an address")
        .timeout(Duration::from_secs(10))
        .connect()
        .await
        .expect("connect");
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request =
        tonic_health::pb::HealthCheckRequest { service: "liftwatch.dispatch.v1.DispatchService".into() };
    let answer = health.check(request).await.expect("health").into_inner();
    assert_eq!(answer.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
}
