//! How often the way from payload to COPY asks for memory, by message and in steady state. Counts, so they are the same
//! on a busy machine and on a quiet one. A target of its own: it counts with an allocator of its own.

#[path = "../benches/support/readings.rs"]
mod readings;

use std::time::Duration;

use allocation_counter::measure;
use domain::{Message, TelemetryBatch, Timestamp};
use ingest::{ProfileView, decode};
use prometheus_client::registry::Registry;
use store::testing::TestDatabase;
use store::{Item, StoreMetrics, Writer};

/// Messages in a commit.
const BATCH: i64 = 1_000;
const LIFTS: i64 = 100;
const TOPIC: &str = "lift/v1/350102/sim-000001/telemetry";

/// What is allowed. The list of the wire, our list, the text of the floor in between, the id in the topic.
const ONE_READING_MAX: u64 = 4;
/// The same, and the floor of each further reading.
const FIFTY_READINGS_MAX: u64 = 61;
/// Of a whole batch, whatever its length: vectors that grow, the sort, what the driver of the database needs.
const COMMIT_MAX: u64 = 100;
/// From payload to committed row: decoding, the shared message, and the message's part in the batch.
const MESSAGE_MAX: f64 = 5.1;

fn batch_of(message: &Message) -> &TelemetryBatch {
    let Message::Telemetry(batch) = message else { panic!("telemetry expected") };
    batch
}

fn decoding(topic: &str, payload: &[u8]) -> u64 {
    let count = || measure(|| assert!(decode(topic, payload, ProfileView::canonical()).is_ok())).count_total;
    // Tables that are made when they are first used.
    count();
    count()
}

#[test]
fn decoding_takes_a_few_allocations() {
    let message = readings::incoming(1, 1, Timestamp::from_millis(1_763_769_600_000)).message;
    let mut batch = batch_of(&message).clone();
    let one = decoding(TOPIC, &proto::encode::telemetry(&batch));
    batch.readings = vec![batch.readings[0].clone(); 50];
    let fifty = decoding(TOPIC, &proto::encode::telemetry(&batch));
    println!("allocations to decode one reading: {one}, fifty: {fifty}");
    assert!(one <= ONE_READING_MAX, "{one} for one reading");
    assert!(fifty <= FIFTY_READINGS_MAX, "{fifty} for fifty");
}

#[test]
fn a_row_takes_no_allocation_of_its_own() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let test = runtime.block_on(TestDatabase::new());
    let database = runtime.block_on(test.open());
    let mut writer = Writer::new(&database, StoreMetrics::register(&mut Registry::default()).into());
    let begin = Timestamp::from(time::OffsetDateTime::now_utc()).minus(Duration::from_mins(10));
    let mut next = 0;
    let mut round = || {
        let made: Vec<_> = (next..next + BATCH).map(|n| readings::incoming(n, LIFTS, begin)).collect();
        next += BATCH;
        let payloads: Vec<_> =
            made.iter().map(|one| proto::encode::telemetry(batch_of(&one.message))).collect();
        let mut items = Vec::with_capacity(made.len());
        let decoding = measure(|| {
            for (mut incoming, payload) in made.into_iter().zip(&payloads) {
                let decoded = decode(TOPIC, payload, ProfileView::canonical()).expect("ours");
                incoming.message = decoded.message.into();
                items.push(Item::Message(incoming));
            }
        });
        let writing = measure(|| {
            let report = runtime.block_on(writer.commit(&items)).expect("commit");
            assert_eq!(report.rows_stored, BATCH.cast_unsigned());
        });
        (decoding.count_total, writing.count_total)
    };
    // Connection, sources, statements, the size of the buffers.
    for _ in 0..3 {
        round();
    }
    let (decoding, writing) = round();
    let a_message = (decoding + writing) as f64 / BATCH as f64;
    println!("allocations for {BATCH} messages: {decoding} to decode, {writing} to commit, {a_message} each");
    assert!(writing <= COMMIT_MAX, "{writing} to commit {BATCH} rows");
    assert!(a_message <= MESSAGE_MAX, "{a_message} a message");
}
