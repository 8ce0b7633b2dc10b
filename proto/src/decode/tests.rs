use domain::fault_by_slug;
use proptest::prelude::*;

use super::*;

fn table(raw: &str) -> Meaning {
    let fault = |slug| fault_by_slug(slug).unwrap();
    match raw {
        "04" => Meaning { first: fault("top_overrun"), second: Some(fault("entrapment")) },
        _ => fault_by_slug(raw).unwrap_or(fault("unknown_code")).into(),
    }
}

#[test]
fn a_code_that_means_two_things_is_two_codes_and_two_events() {
    let list = codes(["04", "entrapment"].into_iter(), &table).unwrap();
    let told: Vec<_> = list.iter().map(|code| (&*code.raw, code.fault.slug)).collect();
    let expected = [("04", "top_overrun"), ("04:entrapment", "entrapment"), ("entrapment", "entrapment")];
    assert_eq!(told, expected);
    assert!(codes([const { "04" }; 17].into_iter(), &table).is_err(), "34 codes");
    let event = v1::Event { seq: 9, time_ms: 5, code: "04".into(), state: 1 };
    let payload = v1::EventBatch { events: vec![event; 2], ..v1::EventBatch::default() }.encode_to_vec();
    let batch = events(&payload, &table).unwrap().taken;
    assert_eq!(batch.events.len(), 4);
    assert_eq!((&*batch.events[1].code.raw, batch.events[1].seq), ("04:entrapment", Seq(9)));
}

fn whole<T>(taken: T) -> Taken<T, DecodeError> {
    Taken { taken, refused: vec![] }
}

#[test]
fn neighbours_of_what_is_refused_are_taken() {
    let reading =
        |seq_offset, load_kg| v1::Reading { seq_offset, load_kg: Some(load_kg), ..Default::default() };
    let readings = vec![reading(0, 75), reading(1, 99_999), reading(2, 80)];
    let batch = v1::TelemetryBatch { boot: 1, seq: 5, readings, ..Default::default() };
    let Taken { taken, refused } = telemetry(&batch.encode_to_vec(), &table).unwrap();
    assert_eq!(taken.readings.iter().map(|reading| reading.seq.0).collect::<Vec<_>>(), [5, 7]);
    let error = DecodeError::Range(RangeError { field: "load_kg", value: 99_999 });
    assert_eq!(refused, [Refused { place: 1, seq: Some(Seq(6)), error }]);

    let event = |seq, code: &str| v1::Event { seq, time_ms: 1, code: code.into(), state: 1 };
    let list = vec![event(0, ""), event(8, "E1"), event(9, "")];
    let batch = v1::EventBatch { events: list, ..Default::default() };
    let Taken { taken, refused } = events(&batch.encode_to_vec(), &table).unwrap();
    assert_eq!((taken.events.len(), taken.events[0].seq), (1, Seq(8)));
    let told = refused.iter().map(|one| (one.place, one.seq)).collect::<Vec<_>>();
    assert_eq!(told, [(0, None), (2, Some(Seq(9)))], "0 is no number");
    let active = Some(v1::Codes { code: vec!["E1".into()] });
    let batch = v1::EventBatch { events: vec![event(9, "")], active, ..Default::default() };
    let Taken { taken, refused } = events(&batch.encode_to_vec(), &table).unwrap();
    assert_eq!((taken.active.map(|active| active.len()), refused.len()), (Some(1), 1));
}

#[test]
fn numbers_that_cannot_be_counted_are_refused_as_they_were_sent() {
    let batch = |seq: u64, offsets: &[u32]| {
        let reading = |offset: &u32| v1::Reading { seq_offset: *offset, ..Default::default() };
        let readings = offsets.iter().map(reading).collect();
        telemetry(
            &v1::TelemetryBatch { boot: 1, seq, readings, ..Default::default() }.encode_to_vec(),
            &table,
        )
    };
    let last = limits::SEQ_MAX as u64;
    assert_eq!(batch(last - 1, &[0, 1]).unwrap().taken.readings[1].seq, Seq(limits::SEQ_MAX));
    let error = DecodeError::Seq(last + 1);
    let beyond = [Refused { place: 1, seq: None, error }];
    assert_eq!(batch(last, &[0, 1]).unwrap().refused, beyond, "two readings must not share a number");
    let told = "seq 18446744073709551615 is beyond 9223372036854775806, the last that can be counted";
    assert_eq!(batch(u64::MAX, &[0]).unwrap_err().to_string(), told);
    let event = v1::Event { seq: u64::MAX, time_ms: 1, code: "a".into(), state: 1 };
    let payload = v1::EventBatch { events: vec![event], ..Default::default() }.encode_to_vec();
    assert_eq!(events(&payload, &table), Err(DecodeError::Seq(u64::MAX)));
}

fn typical() -> Reading {
    let mut reading = Reading::new(Seq(70_000), Timestamp::from_millis(1_763_769_600_123));
    reading.car_status = Field::Known(CarStatus::Running);
    reading.direction = Field::Known(Direction::Up);
    reading.door_zone = Field::Known(false);
    reading.floor = Field::Known(Floor::new("12").unwrap());
    reading.position_mm = Field::Known(33_250);
    reading.velocity_mm_s = Field::Known(1_750);
    reading.load_kg = Field::Known(225);
    reading
}

#[test]
fn golden_bytes_of_one_reading() {
    let batch = TelemetryBatch {
        boot: BootId(7),
        sent: Some(Timestamp::from_millis(1_763_769_600_200)),
        prev_boot_last_seq: None,
        dropped: None,
        readings: vec![typical()],
    };
    let bytes = crate::encode::telemetry(&batch);
    let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(hex, "080710c891f1c6aa3328fb90f1c6aa3330f0a2043a142001280130004a02313258c4870460ac1b68e101");
    assert!(bytes.len() <= 42, "about 40 bytes on the wire, {} seen", bytes.len());
    assert_eq!(telemetry(&bytes, &table).unwrap(), whole(batch));
}

#[test]
fn golden_bytes_of_statistics() {
    let values = Counter::ALL.into_iter().zip([1_i64, 1_000, 7_200, 4, 5, 6, 7, 8, limits::COUNTER_MAX]);
    let counted = Statistics {
        boot: BootId(7),
        sent: Some(Timestamp::from_millis(1_763_769_600_200)),
        seq: Seq(300),
        time: Timestamp::from_millis(1_763_769_600_123),
        counters: values.collect(),
    };
    let bytes = crate::encode::statistics(&counted);
    let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let head = "080710c891f1c6aa3318ac0220fb90f1c6aa33";
    assert_eq!(hex, format!("{head}280130e80738a038400448055006580760086880a094a58d1d"));
    assert_eq!(statistics(&bytes).unwrap(), counted);
}

#[test]
fn statistics_that_are_none_are_refused_by_name() {
    let error = |sent: v1::Statistics| statistics(&sent.encode_to_vec()).unwrap_err().to_string();
    assert_eq!(error(v1::Statistics::default()), "counters: 0 given, 1 to 9 allowed");
    let large = v1::Statistics { run_count: Some(u64::MAX), ..Default::default() };
    assert_eq!(error(large), "run_count -1 is out of range");
    let large = v1::Statistics { mileage_m: Some(1_000_000_000_001), ..Default::default() };
    assert_eq!(error(large), "mileage_m 1000000000001 is out of range");
}

#[test]
fn golden_bytes_of_orders() {
    let sent =
        |order| SentDownlink { id: DownlinkId(300), sent: Timestamp::from_millis(1_763_769_600_123), order };
    let head = "08ac0210fb90f1c6aa33";
    for (order, tail) in [
        (Downlink::ClockSet, "1a0708fb90f1c6aa33"),
        (Downlink::ReportRate { interval_ms: 5_000, for_s: 86_400 }, "220708882710 80a305"),
        (Downlink::LiveView, "2a02083c"),
    ] {
        let bytes = crate::encode::downlink(&sent(order));
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(hex, format!("{head}{}", tail.replace(' ', "")));
        assert_eq!(downlink(&bytes).unwrap(), sent(order));
    }
}

#[test]
fn orders_that_are_none_are_refused() {
    let encoded = |order| v1::Downlink { id: 1, sent_ms: 1, order }.encode_to_vec();
    assert_eq!(downlink(&encoded(None)), Err(DecodeError::Order));
    let rate = v1::downlink::Order::ReportRate(v1::ReportRate { interval_ms: 1, for_s: 1 });
    assert!(matches!(downlink(&encoded(Some(rate))), Err(DecodeError::Downlink(_))));
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    let mut reading = v1::Reading { service_mode: Some(9), ..Default::default() };
    let batch = |reading| {
        let readings = vec![reading];
        v1::TelemetryBatch { boot: 1, seq: 1, readings, ..Default::default() }.encode_to_vec()
    };
    let error = telemetry(&batch(reading.clone()), &table).unwrap_err();
    assert_eq!(error.to_string(), "service_mode 9 is out of range");
    reading.service_mode = None;
    reading.load_kg = Some(u32::MAX);
    let error = telemetry(&batch(reading), &table).unwrap_err();
    assert_eq!(error.to_string(), "load_kg 4294967295 is out of range");
    let empty = v1::TelemetryBatch::default().encode_to_vec();
    assert!(matches!(telemetry(&empty, &table), Err(DecodeError::Count { count: 0, .. })));
}

#[test]
fn a_code_with_a_nul_is_refused() {
    let event = v1::Event { seq: 1, time_ms: 1, code: "a\0b".into(), state: 1 };
    let payload = v1::EventBatch { events: vec![event], ..Default::default() }.encode_to_vec();
    assert_eq!(events(&payload, &table), Err(DecodeError::Code));
}

fn field<T: Clone + std::fmt::Debug + 'static>(
    known: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Field<T>> {
    prop_oneof![Just(Field::Absent), Just(Field::Unknown), known.prop_map(Field::Known)]
}

prop_compose! {
    fn any_reading(first_seq: i64)(
        time_ms in 0_i64..4_000_000,
        offset in 0_i64..1000,
        mode in field(prop::sample::select(ServiceMode::ALL)),
        status in field(prop::sample::select(CarStatus::ALL)),
        zone in field(any::<bool>()),
        door in field(prop::sample::select(DoorState::ALL)),
        passengers in field(prop::sample::select(Passengers::ALL)),
        floor in field("[0-9A-Z-]{1,4}".prop_map(|label| Floor::new(&label).unwrap())),
        ordinal in field(any::<i16>()),
        velocity in field(-30_000_i32..=30_000),
        load in field(0_i16..=30_000),
        // Not a number, which may stand for two.
        codes in field(prop::collection::vec("[a-z][a-z0-9_]{0,19}", 0..4)),
    ) -> Reading {
        let mut reading = Reading::new(Seq(first_seq + offset), Timestamp::from_millis(time_ms));
        reading.service_mode = mode;
        reading.car_status = status;
        reading.door_zone = zone;
        reading.door_state = door;
        reading.passengers = passengers;
        reading.floor = floor;
        reading.floor_ordinal = ordinal;
        reading.velocity_mm_s = velocity;
        reading.load_kg = load;
        reading.codes = codes.map(|list| list.iter().map(|raw| code(raw, &table).unwrap().0).collect());
        reading
    }
}

proptest! {
    #[test]
    fn batches_round_trip(mut readings in prop::collection::vec(any_reading(9), 1..20), boot in any::<u32>()) {
        readings.sort_by_key(|reading| reading.seq);
        let batch = TelemetryBatch {
            boot: BootId(boot), sent: None, prev_boot_last_seq: Some(3), dropped: Some((4, 5)), readings,
        };
        prop_assert_eq!(telemetry(&crate::encode::telemetry(&batch), &table).unwrap(), whole(batch));
    }

    #[test]
    fn statistics_round_trip(
        values in prop::collection::vec(prop::option::of(0..=limits::COUNTER_MAX), Counter::COUNT),
        boot in any::<u32>(), seq in 0..=limits::SEQ_MAX, time_ms in any::<i64>(), sent in prop::option::of(any::<i32>()),
    ) {
        let counted = Counter::ALL.into_iter().zip(values);
        let counted = Statistics {
            boot: BootId(boot),
            sent: sent.map(|millis| Timestamp::from_millis(i64::from(millis))),
            seq: Seq(seq),
            time: Timestamp::from_millis(time_ms.clamp(-4_000_000_000_000, 4_000_000_000_000)),
            counters: counted.filter_map(|(counter, value)| Some((counter, value?))).collect(),
        };
        let back = statistics(&crate::encode::statistics(&counted));
        if counted.counters.is_empty() {
            prop_assert!(back.is_err());
        } else {
            prop_assert_eq!(back.unwrap(), counted);
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = telemetry(&bytes, &table);
        let _ = events(&bytes, &table);
        let _ = downlink(&bytes);
        let _ = statistics(&bytes);
    }
}
