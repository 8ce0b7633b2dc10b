use std::collections::BTreeSet;

use domain::{EventState, Field, Meaning, fault_by_slug};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::fault::FaultKind;
use crate::lift::Spec;

fn table(raw: &str) -> Meaning {
    fault_by_slug(raw).expect("the simulator speaks in slugs").into()
}

fn start() -> Timestamp {
    "2026-11-22T07:30:00+08:00".parse().unwrap()
}

fn terminal(seed: u64, settings: Settings) -> Terminal {
    let spec = Spec::draw(&mut ChaCha8Rng::seed_from_u64(seed));
    let lift = Lift::new(spec, seed, start());
    let id = TerminalId::new("sim-1").unwrap();
    let first = match settings.pace {
        Pace::Every(_) => start(),
        Pace::OnChange | Pace::Unlimited => start().plus(settings.heartbeat),
    };
    Terminal::new(Arc::new(settings), id, "350102".parse().unwrap(), lift, 7, first)
}

/// Sends all it can, acknowledges each, and returns the payloads.
fn drain(terminal: &mut Terminal, now: Timestamp) -> Vec<Outgoing> {
    let mut all = Vec::new();
    while let Some(message) = terminal.next_message(now) {
        terminal.acknowledged(message.pkid).unwrap();
        all.push(message);
    }
    all
}

fn telemetry(message: &Outgoing) -> TelemetryBatch {
    assert!(message.topic.ends_with("/telemetry"), "{}", message.topic);
    proto::decode::telemetry(&message.payload, &table).unwrap().taken
}

#[test]
fn a_connect_tells_the_state_then_the_active_faults_then_the_rest() {
    let mut terminal = terminal(1, Settings { complete: false, ..Settings::default() });
    terminal.inject(Fault::new(FaultKind::EntrapmentBetweenFloors).until_released(), start());
    let now = start().plus(Duration::from_mins(5));
    terminal.connected(now);
    let messages = drain(&mut terminal, now);
    let state = telemetry(&messages[0]);
    assert_eq!(state.readings.len(), 1);
    let reading = &state.readings[0];
    assert_eq!(reading.time, now);
    assert!(reading.floor.is_sent() && reading.load_kg.is_sent(), "all of it: {reading:?}");
    assert_eq!(reading.door_zone, Field::Known(false));
    let active = proto::decode::events(&messages[1].payload, &table).unwrap().taken;
    let slugs: Vec<&str> = active.active.iter().flatten().map(|code| &*code.raw).collect();
    assert_eq!(slugs, ["stop_outside_zone"]);
    assert_eq!(messages[0].topic.as_ref(), "lift/v1/350102/sim-1/telemetry");
    let backlog: Vec<i64> = messages[2..]
        .iter()
        .filter(|message| message.topic.ends_with("telemetry"))
        .flat_map(|message| telemetry(message).readings)
        .map(|reading| reading.seq.0)
        .collect();
    assert!(backlog.len() > 10 && backlog.is_sorted(), "{backlog:?}");
    let events: Vec<_> = messages[2..]
        .iter()
        .filter(|message| message.topic.ends_with("event"))
        .flat_map(|message| proto::decode::events(&message.payload, &table).unwrap().taken.events)
        .filter(|event| &*event.code.raw == "stop_outside_zone")
        .map(|event| event.state)
        .collect();
    assert_eq!(events, [EventState::Open]);
}

#[test]
fn sent_is_rewritten_and_device_time_is_not() {
    let mut terminal = terminal(2, Settings::default()).with_skew(Duration::from_secs(5));
    terminal.connected(start());
    let first = telemetry(&terminal.next_message(start()).unwrap());
    terminal.disconnected();
    let later = start().plus(Duration::from_secs(90));
    terminal.connected(later);
    let again = drain(&mut terminal, later);
    let resent = again.iter().find(|message| message.resent).unwrap();
    let resent = telemetry(resent);
    let skew = Duration::from_secs(5);
    assert_eq!(first.readings[0], resent.readings[0]);
    assert_eq!((first.sent, resent.sent), (Some(start().plus(skew)), Some(later.plus(skew))));
    assert_eq!(first.readings[0].time, start().plus(skew));
}

#[test]
fn a_reboot_tells_the_last_number_of_the_boot_before() {
    let mut terminal = terminal(3, Settings::default());
    terminal.connected(start());
    drain(&mut terminal, start());
    terminal.disconnected();
    terminal.reboot(8);
    terminal.connected(start());
    let first = telemetry(&terminal.next_message(start()).unwrap());
    assert_eq!((first.boot, first.prev_boot_last_seq, first.readings[0].seq), (BootId(8), Some(1), Seq(1)));
    terminal.disconnected();
    terminal.connected(start());
    let messages = drain(&mut terminal, start());
    assert_eq!(telemetry(&messages[0]).prev_boot_last_seq, Some(1), "until it is acknowledged");
    terminal.tick(start().plus(Duration::from_mins(2)));
    let later = drain(&mut terminal, start().plus(Duration::from_mins(2)));
    assert_eq!(telemetry(&later[0]).prev_boot_last_seq, None);
}

#[test]
fn an_overflow_is_told() {
    let settings = Settings { outbox_max: 50, window: 5, ..Settings::default() };
    let mut terminal = terminal(4, Settings { pace: Pace::Every(Duration::from_secs(1)), ..settings });
    terminal.tick(start().plus(Duration::from_secs(40)));
    terminal.tick(start().plus(Duration::from_secs(80)));
    assert_eq!(terminal.unacknowledged(), 50);
    let lost = terminal.dropped() as i64;
    assert!(lost >= 30, "{lost}");
    let now = start().plus(Duration::from_secs(80));
    terminal.connected(now);
    let messages = drain(&mut terminal, now);
    let told: Vec<_> = messages
        .iter()
        .filter(|message| message.topic.ends_with("telemetry"))
        .filter_map(|message| telemetry(message).dropped)
        .collect();
    assert_eq!(told, [(1, lost + 1)], "the reading of the connect pushes one more out");
}

#[test]
fn a_backlog_of_an_outage_comes_in_batches_after_the_present() {
    let settings = Settings { window: 2, backlog_batch: 50, ..Settings::default() };
    let past = start().minus(Duration::from_hours(1));
    let lift = Lift::new(Spec::draw(&mut ChaCha8Rng::seed_from_u64(9)), 9, past);
    let mut terminal = terminal(9, settings).with_outage(lift, Duration::from_mins(2));
    terminal.connected(start());
    let messages = drain(&mut terminal, start());
    let present = telemetry(&messages[0]);
    assert_eq!((present.readings[0].seq, present.readings[0].time), (Seq(121), start()));
    let backlog: Vec<_> = messages[2..].iter().map(telemetry).collect();
    assert_eq!(backlog.iter().map(|batch| batch.readings.len()).collect::<Vec<_>>(), [50, 50, 20]);
    let readings: Vec<_> = backlog.iter().flat_map(|batch| &batch.readings).collect();
    assert!((1..).zip(&readings).all(|(n, one)| {
        one.seq == Seq(n) && one.time == past.plus(Duration::from_secs(n.cast_unsigned()))
    }));
    assert_eq!(terminal.unacknowledged(), 0);
}

#[test]
fn even_pace_is_even_and_a_window_is_kept() {
    let pace = Pace::Every(Duration::from_millis(100));
    let mut terminal = terminal(5, Settings { pace, window: 3, ..Settings::default() });
    terminal.connected(start());
    terminal.tick(start().plus(Duration::from_secs(10)));
    let mut taken = 0;
    while terminal.next_message(start()).is_some() {
        taken += 1;
    }
    assert_eq!(taken, 3);
    let numbered = terminal.unacknowledged();
    assert!((100..120).contains(&numbered), "{numbered} readings in 10 s of 10/s");
}

#[test]
fn json_says_the_same_as_protobuf() {
    let make = |format| {
        let mut terminal = terminal(6, Settings { format, ..Settings::default() });
        terminal.connected(start());
        terminal.next_message(start()).unwrap()
    };
    let (json, native) = (make(Format::Json), make(Format::Protobuf));
    assert_eq!(json.topic.as_ref(), "lift/v1/350102/sim-1/telemetry.json");
    let json: serde_json::Value = serde_json::from_slice(&json.payload).unwrap();
    let native = telemetry(&native);
    let (there, here) = (&json["readings"][0], &native.readings[0]);
    assert_eq!(json["boot"], 7);
    assert_eq!(there["time"].as_str().unwrap().parse(), Ok(here.time));
    assert_eq!(there["position_mm"], here.position_mm.known().unwrap());
    assert_eq!(there["door_state"], here.door_state.known().unwrap().number());
    assert_eq!(there["codes"], serde_json::json!([]));
}

#[test]
fn counters_are_told_by_the_clock_grow_and_begin_anew_after_a_reset() {
    for format in [Format::Protobuf, Format::Json] {
        let statistics = Some(Duration::from_mins(15));
        let mut terminal = terminal(9, Settings { format, statistics, ..Settings::default() });
        terminal.connected(start());
        let mut told = Vec::new();
        let mut seqs = BTreeSet::new();
        for quarter in 1..=8_u32 {
            if quarter == 5 {
                terminal.reset_counters();
            }
            let now = start().plus(Duration::from_mins(15) * quarter + Duration::from_mins(2));
            terminal.tick(now);
            for message in drain(&mut terminal, now).iter().filter(|one| one.topic.contains("/stats")) {
                let (seq, runs) = match format {
                    Format::Protobuf => {
                        let counted = proto::decode::statistics(&message.payload).unwrap();
                        (counted.seq.0, counted.counters.get(Counter::RunCount).unwrap())
                    }
                    Format::Json => {
                        let counted: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
                        (counted["seq"].as_i64().unwrap(), counted["run_count"].as_i64().unwrap())
                    }
                };
                assert!(seqs.insert(seq), "{seq} comes once");
                told.push(runs);
            }
        }
        assert!(told.len() >= 7, "{told:?}");
        assert_eq!(told.windows(2).filter(|pair| pair[1] < pair[0]).count(), 1, "one reset in {told:?}");
    }
}

#[test]
fn everything_written_in_json_is_valid() {
    let validators = [ingest::Schema::Telemetry, ingest::Schema::Event, ingest::Schema::Stats]
        .map(|schema| (schema.name(), jsonschema::validator_for(&schema.document()).unwrap()));
    let mut seen = [0, 0, 0];
    for (seed, kind) in FaultKind::ALL.into_iter().enumerate() {
        let statistics = Some(Duration::from_mins(5));
        let settings =
            Settings { format: Format::Json, complete: seed % 2 == 0, statistics, ..Settings::default() };
        let mut terminal = terminal(seed as u64, settings);
        terminal.inject(Fault::new(kind).lasting(Duration::from_secs(100)), start());
        for minute in 0..30 {
            let now = start().plus(Duration::from_mins(minute));
            terminal.tick(now);
            terminal.connected(now);
            for message in drain(&mut terminal, now) {
                let payload: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
                let index =
                    validators.iter().position(|(name, _)| message.topic.ends_with(&format!("/{name}.json")));
                let index = index.unwrap_or_else(|| panic!("{}", message.topic));
                let errors: Vec<_> =
                    validators[index].1.iter_errors(&payload).map(|it| it.to_string()).collect();
                assert!(errors.is_empty(), "{payload}: {errors:?}");
                seen[index] += 1;
            }
            terminal.disconnected();
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// What decoding sees is exactly what was numbered, whatever the network does.
    #[test]
    fn every_number_arrives_under_random_cuts(
        seed in any::<u64>(), complete in any::<bool>(),
        steps in prop::collection::vec((1_u64..20_000, 0_u8..5, 0_usize..30), 1..60),
    ) {
        let mut terminal = terminal(seed, Settings { complete, window: 8, ..Settings::default() });
        terminal.inject(Fault::new(FaultKind::PowerCut).lasting(Duration::from_secs(100)), start());
        let (mut now, mut online, mut arrived) = (start(), false, BTreeSet::new());
        let mut unacknowledged: Vec<Outgoing> = Vec::new();
        for (wait_ms, act, count) in steps {
            now = now.plus(Duration::from_millis(wait_ms));
            terminal.tick(now);
            match (act, online) {
                (0, true) => {
                    terminal.disconnected();
                    unacknowledged.clear();
                    online = false;
                }
                (_, false) => {
                    terminal.connected(now);
                    online = true;
                }
                (1 | 2, true) => unacknowledged.extend(terminal.next_message(now)),
                _ => {
                    for message in unacknowledged.drain(..unacknowledged.len().min(count)) {
                        let delivered = terminal.acknowledged(message.pkid).unwrap();
                        for seq in numbers(&message) {
                            prop_assert!(delivered.seqs.contains(&seq));
                            prop_assert!(arrived.insert(seq), "{seq} was acknowledged before");
                        }
                    }
                }
            }
        }
        terminal.disconnected();
        terminal.connected(now);
        for message in drain(&mut terminal, now) {
            for seq in numbers(&message) {
                prop_assert!(arrived.insert(seq), "{seq} was acknowledged before");
            }
        }
        let last = *arrived.last().unwrap();
        prop_assert_eq!(arrived.len() as i64, last, "no gap up to the newest");
        prop_assert_eq!(terminal.unacknowledged(), 0);
    }
}

fn numbers(message: &Outgoing) -> Vec<i64> {
    if message.topic.ends_with("telemetry") {
        telemetry(message).readings.iter().map(|reading| reading.seq.0).collect()
    } else {
        let batch = proto::decode::events(&message.payload, &table).unwrap().taken;
        batch.events.iter().map(|event| event.seq.0).collect()
    }
}
