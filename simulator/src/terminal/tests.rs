use super::*;
use domain::EventState;

const BOOT: BootId = BootId(7);

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_763_769_600_000 + ms)
}

fn terminal(policy: Policy) -> Terminal {
    let id = TerminalId::new("t-1").unwrap();
    let mut lift = Lift::new(1, 10, at(0));
    lift.set_trips_per_day(2_000.0);
    Terminal::new(id, Area::from_number(350_102).unwrap(), BOOT, lift, policy, at(0))
}

#[test]
fn after_a_reconnect_the_present_comes_first_then_the_active_list_then_the_backlog() {
    let mut terminal = terminal(Policy::OnChange);
    for step in 0..6_000 {
        terminal.tick(at(step * 100));
    }
    let (done, notes) = terminal.inject(Fault::UnintendedMovement, at(600_000));
    assert!(done && matches!(notes[..], [Note::Began(_, Fault::UnintendedMovement, _)]), "{notes:?}");
    let backlog = terminal.outbox().len();
    assert!(backlog > 100, "{backlog} items in 10 busy minutes");
    terminal.connected(at(601_000));
    let first = terminal.next_message(at(601_000)).unwrap();
    assert_eq!((first.kind, first.first_seq), (Kind::Telemetry, backlog as i64 + 1));
    assert_eq!(first.first_seq, first.last_seq);
    let active = terminal.next_message(at(601_000)).unwrap();
    assert_eq!((active.id, active.kind), (None, Kind::Event));
    let mut next = 1;
    let mut ids = vec![first.id.unwrap()];
    while let Some(message) = terminal.next_message(at(601_000)) {
        assert_eq!(message.first_seq, next, "oldest first, without a hole");
        next = message.last_seq + 1;
        ids.push(message.id.unwrap());
    }
    assert_eq!(next, backlog as i64 + 1);
    for id in ids {
        assert!(terminal.acknowledged(id) > 0);
    }
    assert!(terminal.outbox().is_empty());
}

#[test]
fn a_rate_is_kept_and_each_reading_is_complete() {
    let mut terminal = terminal(Policy::Every(Duration::from_secs(2)));
    for step in 0..600 {
        terminal.tick(at(step * 100));
    }
    assert_eq!(terminal.outbox().len(), 30);
    let Item::Reading(reading) = terminal.outbox.take().unwrap().items.remove(0) else {
        panic!("no reading")
    };
    assert_eq!(reading.check(), Ok(()));
    assert!(reading.door_state.is_sent() && reading.floor.is_sent() && reading.codes.is_sent());
}

#[test]
fn the_tempo_is_each_change_and_a_heartbeat() {
    let mut terminal = terminal(Policy::OnChange);
    terminal.lift.set_trips_per_day(0.001);
    let mut due = at(0);
    while due < at(600_000) {
        terminal.tick(due);
        let next = terminal.next_due();
        assert!(next > due, "time goes on");
        due = next;
    }
    assert_eq!(terminal.outbox().len(), 10, "a standing lift says one thing a minute");
}

fn meaning(raw: &str) -> &'static domain::FaultKind {
    domain::fault_by_slug(raw).unwrap()
}

/// A terminal without power, and all it says after its connect.
fn said(json: bool) -> Vec<Outgoing> {
    let mut terminal = terminal(Policy::OnDemand).with_json(json);
    terminal.inject(Fault::PowerCut, at(0));
    terminal.read(at(5));
    terminal.connected(at(10));
    let said: Vec<Outgoing> = std::iter::from_fn(|| terminal.next_message(at(20))).collect();
    let kinds: Vec<Kind> = said.iter().map(|message| message.kind).collect();
    assert_eq!(kinds, [Kind::Telemetry, Kind::Event, Kind::Event, Kind::Telemetry]);
    said
}

#[test]
fn protobuf_says_what_was_meant() {
    let said = said(false);
    let state = proto::decode::telemetry(&said[0].payload, &meaning).unwrap();
    assert_eq!((state.boot, state.sent), (BOOT, Some(at(20))));
    let reading = &state.readings[0];
    assert_eq!((reading.seq.0, reading.time), (said[0].first_seq, at(10)));
    assert_eq!(reading.flag(Reading::FLAG_BATTERY_POWER), Field::Known(true));
    assert_eq!(reading.passengers, Field::Known(Passengers::No));
    let active = proto::decode::events(&said[1].payload, &meaning).unwrap();
    assert_eq!(&*active.active.unwrap()[0].raw, "power_off");
    let event = &proto::decode::events(&said[2].payload, &meaning).unwrap().events[0];
    assert_eq!((&*event.code.raw, event.state, event.time), ("power_off", EventState::Open, at(0)));
}

#[test]
fn json_says_it_in_the_words_of_the_wire_document() {
    let said = said(true);
    let value = |place: usize| serde_json::from_slice::<Value>(&said[place].payload).unwrap();
    let state = value(0);
    assert_eq!((&state["boot"], &state["sent"]), (&json!(7), &json!(at(20).millis())));
    let reading = &state["readings"][0];
    assert_eq!(reading["seq"], json!(said[0].first_seq));
    assert_eq!(reading["time"], json!(at(10).millis()));
    assert_eq!(reading["passengers"], json!(false));
    assert_eq!(reading["door_state"], json!(2));
    assert_eq!(reading["codes"], json!(["power_off"]));
    assert_eq!(value(1)["active"], json!(["power_off"]));
    let event = json!({"seq": 1, "time": at(0).millis(), "code": "power_off", "state": "open"});
    assert_eq!(value(2)["events"], json!([event]));
}
