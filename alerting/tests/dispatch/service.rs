//! Calls of dispatch centres.

use proto::dispatch::v1;
use sha2::{Digest, Sha256};
use store::AlarmCommitter;
use store::testing::TestDatabase;
use tonic::Code;

use crate::common::{TestClock, acknowledge, at, config, raised, start, unintended_movement, within};

const UNKNOWN: &str = "18081f82-f75c-55a7-bc4c-e282e51ede82";

#[tokio::test]
async fn acknowledging_again_gives_the_first_result() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let clock = TestClock::new(at(100));
    let mut running = start(&database, &clock, config()).await;
    let (event, other) = (raised(1, 1), raised(2, 1));
    let (id, other_id) = (event.alarm.id.to_string(), other.alarm.id.to_string());
    AlarmCommitter::new(database.clone()).alarm_commit(&[event, other], &[]).await.unwrap();

    let first = running.client.acknowledge(acknowledge(&id, "k1")).await.unwrap().into_inner();
    let alarm = first.alarm.clone().unwrap();
    assert_eq!((first.no, alarm.acknowledged_by.as_deref()), (3, Some("seat 4")));
    assert_eq!(alarm.acknowledged_us, Some(at(100).micros()));
    clock.set(at(200));
    let again = running.client.acknowledge(acknowledge(&id, "k1")).await.unwrap().into_inner();
    assert_eq!(again, first);

    let mut code = async |request| running.client.acknowledge(request).await.unwrap_err().code();
    assert_eq!(code(acknowledge(&other_id, "k1")).await, Code::AlreadyExists);
    assert_eq!(code(acknowledge(UNKNOWN, "k2")).await, Code::NotFound);
    assert_eq!(code(acknowledge("7", "k2")).await, Code::InvalidArgument);
    assert_eq!(code(acknowledge(&id, "")).await, Code::InvalidArgument);
    assert_eq!(
        code(acknowledge(&id, &"k".repeat(100_000))).await,
        Code::OutOfRange,
        "larger than any request"
    );
}

#[tokio::test]
async fn hostile_requests_are_refused_by_name() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let watch = v1::WatchRequest { resume_after: Some(-1), ..Default::default() };
    let list = v1::ListAlarmsRequest { page_token: "\u{0}'; DROP TABLE alarm".into(), ..Default::default() };
    let get = v1::GetAlarmRequest { alarm_id: "../..".into() };
    let refusals = [
        ("resume_after", running.client.watch(watch).await.unwrap_err()),
        ("page_token", running.client.list_alarms(list).await.unwrap_err()),
        ("alarm_id", running.client.get_alarm(get).await.unwrap_err()),
    ];
    for (field, status) in refusals {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
    let missing = v1::GetAlarmRequest { alarm_id: UNKNOWN.into() };
    assert_eq!(running.client.get_alarm(missing).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn pages_of_alarms_follow_each_other() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    let events: Vec<_> = (1..=25).map(|elevator| raised(elevator, elevator / 4)).collect();
    AlarmCommitter::new(database.clone()).alarm_commit(&events, &[]).await.unwrap();
    let mut request = v1::ListAlarmsRequest { page_size: 10, ..Default::default() };
    let mut pages = vec![];
    loop {
        let page = running.client.list_alarms(request.clone()).await.unwrap().into_inner();
        pages.push(page.alarms);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    let mut elevators: Vec<i64> = pages.iter().flatten().map(|alarm| alarm.elevator_id).collect();
    elevators.sort_unstable();
    assert_eq!(elevators, (1..=25).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_alarm_is_explained_after_a_minute() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let clock = TestClock::new(at(0));
    let mut config = config();
    config.seal_every = std::time::Duration::from_millis(20);
    let mut running = start(&database, &clock, config).await;
    running.submit(unintended_movement(1, 1, 0)).await;
    let id = database.alarm_events_after(0, 1).await.unwrap()[0].alarm.id.to_string();
    let request = v1::GetAlarmRequest { alarm_id: id.clone() };
    clock.set(at(60));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let early = running.client.get_alarm(request.clone()).await.unwrap().into_inner();
    assert_eq!((early.evidence, early.events.len()), (None, 1));
    clock.set(at(66));
    let sealed = async {
        loop {
            let answer = running.client.get_alarm(request.clone()).await.unwrap().into_inner();
            if let Some(evidence) = answer.evidence {
                return evidence;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let evidence = within(sealed).await;
    let digest: [u8; 32] = Sha256::digest(evidence.json.as_bytes()).into();
    let told: Vec<u8> = (0..32)
        .map(|byte| u8::from_str_radix(&evidence.sha256[2 * byte..2 * byte + 2], 16).unwrap())
        .collect();
    assert_eq!((told.as_slice(), evidence.sealed_us), (digest.as_slice(), at(66).micros()));
    assert!(evidence.json.contains("unintended_movement"), "{}", evidence.json);
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    };
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let running = start(&database, &TestClock::new(at(0)), config()).await;
    let channel =
        tonic::transport::Endpoint::from_shared(running.address.clone()).unwrap().connect().await.unwrap();
    let service = "liftwatch.dispatch.v1.DispatchService".to_owned();
    let health = HealthClient::new(channel.clone())
        .check(HealthCheckRequest { service: service.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(health.status, 1, "serving");

    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(futures_util::stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&service), "{names:?}");
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let test = TestDatabase::new().await;
    let database = test.open().await;
    let mut running = start(&database, &TestClock::new(at(0)), config()).await;
    running.submit(unintended_movement(1, 1, 0)).await;
    running.submit(unintended_movement(2, 2, 0)).await;
    let id = database.alarm_events_after(0, 1).await.unwrap()[0].alarm.id.to_string();
    running.client.acknowledge(acknowledge(&id, "k")).await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &running.metrics).unwrap();
    for line in [
        "alerting_inputs_total 2",
        "alerting_alarms_raised_total{severity=\"S1\"} 2",
        "alerting_commit_seconds_count 2",
        "alerting_acknowledged_total 1",
        "alerting_provisional_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
