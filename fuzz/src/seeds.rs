//! The seed corpus, made from what real clients send. `cargo run -p fuzz -- --write-corpus` writes it.

mod mqtt;
mod websocket;

use domain::{
    BootId, Code, Counter, EventBatch, EventState, FaultEvent, Field, Floor, Passengers, Reading, Seq,
    ServiceMode, Statistics, TelemetryBatch, Timestamp,
};

use crate::targets::{ALL, Target};

/// One file of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Name of its target.
    pub target: &'static str,
    /// Name of its file.
    pub name: String,
    /// What the target reads.
    pub bytes: Vec<u8>,
}

impl Seed {
    fn new(target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { target, name: name.into(), bytes: bytes.into() }
    }
}

/// All seeds.
pub fn all() -> Vec<Seed> {
    let mut seeds = mqtt::all();
    seeds.extend(websocket::all());
    seeds.extend(protobuf());
    seeds.extend(json());
    seeds.extend(profiles());
    seeds.extend(topics());
    seeds
}

/// Those of one target.
pub fn of(target: &Target) -> Vec<Vec<u8>> {
    debug_assert!(ALL.iter().any(|known| known.name == target.name));
    all().into_iter().filter(|seed| seed.target == target.name).map(|seed| seed.bytes).collect()
}

const BEGIN_MS: i64 = 1_763_769_600_000;

fn running(index: i64) -> Reading {
    let mut reading = Reading::new(Seq(100 + index), Timestamp::from_millis(BEGIN_MS + index * 1_000));
    reading.service_mode = Field::Known(ServiceMode::Normal);
    reading.door_zone = Field::Known(false);
    reading.passengers = Field::Known(Passengers::Yes);
    reading.floor = Floor::new("12").map_or(Field::Absent, Field::Known);
    reading.position_mm = Field::Known(33_250);
    reading.velocity_mm_s = Field::Known(-1_750);
    reading.load_kg = Field::Known(225);
    reading
}

fn codes(slugs: &[&str]) -> Vec<Code> {
    slugs.iter().filter_map(|slug| Code::canonical(slug)).collect()
}

fn protobuf() -> Vec<Seed> {
    let batch = |readings: Vec<Reading>| TelemetryBatch {
        boot: BootId(7),
        sent: Some(Timestamp::from_millis(BEGIN_MS + 200)),
        prev_boot_last_seq: None,
        dropped: None,
        readings,
    };
    let mut full = running(0);
    full.floor_ordinal = Field::Known(-2);
    full.people_count = Field::Known(3);
    full.flags = Field::Known(5);
    full.temperature_dc = Field::Known(-105);
    full.vibration_mm_s2 = Field::Known(90);
    full.codes = Field::Known(codes(&["entrapment", "door_fault", "unknown_code"]));
    let mut unknown = Reading::new(Seq(1), Timestamp::from_millis(BEGIN_MS));
    (unknown.floor, unknown.load_kg, unknown.codes) = (Field::Unknown, Field::Unknown, Field::Unknown);
    let mut rebooted = batch(vec![running(0)]);
    rebooted.prev_boot_last_seq = Some(99);
    rebooted.dropped = Some((5, 9));
    let mut unnumbered = running(0);
    unnumbered.seq = Seq(0);
    let telemetry = [
        ("one", batch(vec![running(0)])),
        ("twenty", batch((0..20).map(running).collect())),
        ("full", batch(vec![full])),
        ("unknown", batch(vec![unknown])),
        ("rebooted", rebooted),
        ("unnumbered", batch(vec![unnumbered])),
    ];
    let event = |seq, slug, state| FaultEvent {
        seq: Seq(seq),
        time: Timestamp::from_millis(BEGIN_MS + seq),
        code: Code::canonical(slug).expect("a slug of the taxonomy"),
        state,
    };
    let events = |events, active| EventBatch { boot: BootId(7), sent: None, events, active };
    let event = [
        ("open", events(vec![event(1, "entrapment", EventState::Open)], None)),
        (
            "several",
            events(
                vec![
                    event(1, "entrapment", EventState::Open),
                    event(2, "entrapment", EventState::Close),
                    event(0, "unknown_code", EventState::Once),
                ],
                Some(codes(&["entrapment"])),
            ),
        ),
        ("active", events(Vec::new(), Some(codes(&["entrapment", "unintended_movement"])))),
        ("nothing_active", events(Vec::new(), Some(Vec::new()))),
    ];
    let telemetry =
        telemetry.map(|(name, batch)| Seed::new("telemetry", name, proto::encode::telemetry(&batch)));
    let event = event.map(|(name, batch)| Seed::new("event", name, proto::encode::events(&batch)));
    let counted = |values: &[i64]| Statistics {
        boot: BootId(7),
        sent: Some(Timestamp::from_millis(BEGIN_MS + 200)),
        seq: Seq(120),
        time: Timestamp::from_millis(BEGIN_MS),
        counters: Counter::ALL.into_iter().zip(values.iter().copied()).collect(),
    };
    let statistics = [("one", counted(&[9])), ("all", counted(&[1, 2, 3, 4, 5, 6, 7, 8, 1_000_000_000_000]))];
    let statistics =
        statistics.map(|(name, counted)| Seed::new("statistics", name, proto::encode::statistics(&counted)));
    telemetry.into_iter().chain(event).chain(statistics).collect()
}

fn profiles() -> Vec<Seed> {
    let json = [
        (
            "exchange",
            r#"{"Time_Stamps":"2026-11-22 08:00:00","Service_Mode":1,"Car_Status":1,"Car_Direction":1,"Door_Zone":2,"Door_Status":1,"Passenger_Status":1,"Car_Position":"12","Message_Code":["01","61"]}"#,
        ),
        (
            "retrofit",
            r#"{"boot":7,"readings":[{"seq":1,"time":1763769600000,"service_mode":0,"door_zone":0,"speed_mps":1.75,"codes":"5,9"}]}"#,
        ),
        (
            "gprs",
            r#"{"time":"20261122080000","service_mode":0,"car_direction":255,"door_closed":0,"codes":"040a06"}"#,
        ),
        ("gprs_event", r#"{"boot":1,"time":1763769600000,"code":"06","state":"open","active":["04"]}"#),
        ("telecom", r#"[{"time":1,"flag":"F9999","state":"open"},{"time":2,"flag":"f9989","state":7}]"#),
        (
            "bacnet",
            r#"{"time":1,"Car_Mode":8,"Car_Door_Status":[0,1,5],"Car_Door_Zone":[true,null],"Car_Moving_Direction":3,"Car_Drive_Status":2,"Car_Position":7,"Fault_Signals":[3,1024],"Passenger_Alarm":true}"#,
        ),
        ("nested", r#"{"time":1,"a":{"b":{"c":{"d":{"e":1}}}},"dropped":{"from":1,"to":2},"floor":12}"#),
    ];
    let toml = [
        (
            "small",
            "name = \"acme\"\ntitle = \"Acme\"\nextends = \"retrofit\"\n[codes.lift]\n99 = \"car_impact\"\n",
        ),
        (
            "full",
            "name = \"acme\"\ntitle = \"Acme\"\nkinds = [\"lift\"]\nbooleans = { 1 = true, 2 = false }\n[clock]\nzone = \"-03:30\"\nnumber = \"s\"\ntext = \"[day].[month].[year] [hour]:[minute]:[second]\"\n[fields.velocity_mm_s]\nnames = [\"v\"]\nunit = \"0.1 m/s\"\n[fields.door_state]\nnames = [\"doors\"]\nvalues = { 0 = \"closed\", 1 = \"open\" }\nseveral = \"most_open\"\nignored = [5]\n[escalator.service_mode]\nvalues = { 0 = \"normal\" }\n[codes]\nform = \"hex\"\nwidth = 2\npacked = true\n[codes.any]\n0a = [\"top_overrun\", \"entrapment\"]\n0b = { slug = \"esc_overspeed\", detail = \"1.2×\" }\n",
        ),
        (
            "wrong",
            "name = 7\ntitel = \"x\"\n[fields.door]\n[codes.lift]\n1 = \"entrapmnt\"\n01 = \"entrapment\"\n",
        ),
        ("broken", "name = \"x\n"),
    ];
    let payloads = json.iter().map(|(name, text)| Seed::new("profile_json", *name, *text));
    payloads.chain(toml.iter().map(|(name, text)| Seed::new("profile_toml", *name, *text))).collect()
}

fn json() -> Vec<Seed> {
    let telemetry = [
        (
            "example",
            r#"{"boot":7,"readings":[{"seq":1,"time":"2026-11-22T08:00:00.123+08:00","service_mode":1,"car_status":1,"car_direction":1,"door_zone":false,"door_state":2,"passengers":true,"floor":"12","position_mm":33250,"velocity_mm_s":1750,"load_kg":225,"codes":[]}]}"#,
        ),
        ("single", r#"{"boot":7,"sent":1763769600200,"time":1763769600000,"floor":"-1"}"#),
        ("local_time", r#"{"time":"2026-11-22 08:00:00","door_closed":true,"floor":null,"codes":null}"#),
        (
            "full",
            r#"{"boot":7,"sent":"2026-11-22T00:00:01Z","prev_boot_last_seq":9,"dropped":{"from":5,"to":9},"readings":[{"time":1,"seq":1,"floor_ordinal":-2,"people_count":3,"flags":5,"car_temp_c":-10.5,"vibration_mm_s2":90,"codes":["entrapment",5,"F9999"]},{"time":1001,"seq":2,"car_status":null,"passengers":false}]}"#,
        ),
        ("newer", r#"{"time":1000,"colour":{"deep":[[[1,2.5e3,"x"]]]},"floor":"\u0031\u7535"}"#),
        ("range", r#"{"time":1000,"load_kg":99999999999,"car_temp_c":1e300}"#),
        ("empty", r#"{"readings":[]}"#),
    ];
    let event = [
        (
            "example",
            r#"{"boot":7,"seq":9,"time":"2026-11-22T08:00:00+08:00","code":"entrapment","state":"open"}"#,
        ),
        (
            "several",
            r#"{"events":[{"time":1000,"code":5,"state":"close"},{"seq":2,"time":2000,"code":"F9999","state":"once"}],"active":["entrapment"]}"#,
        ),
        ("active", r#"{"active":["entrapment",93]}"#),
        ("nothing_active", r#"{"boot":1,"active":[]}"#),
        ("half", r#"{"code":"entrapment","state":"open"}"#),
    ];
    let telemetry = telemetry.map(|(name, text)| Seed::new("telemetry_json", name, text));
    let event = event.map(|(name, text)| Seed::new("event_json", name, text));
    let statistics = [
        (
            "example",
            r#"{"boot":7,"seq":10,"time":"2026-11-22T08:00:00+08:00","door_open_count":9000,"energy_kwh":8123.5,"total_hours":1200.25,"run_count":51234,"rope_bend_count":204936,"mileage_m":813000,"passenger_count":null,"levelling_count":3,"round_trip_count":4}"#,
        ),
        ("range", r#"{"time":1000,"energy_kwh":1e300,"run_count":-1}"#),
        ("nothing", r#"{"time":1000}"#),
    ];
    let statistics = statistics.map(|(name, text)| Seed::new("statistics_json", name, text));
    telemetry.into_iter().chain(event).chain(statistics).collect()
}

fn topics() -> Vec<Seed> {
    let texts = [
        "lift/v1/+/T1/#\nlift/v1/310115/T1/telemetry\nlift/v1/310115/T1/telemetry",
        "lift/v1/310115/#\nlift/v1/310115/+/event.json\nlift/v1/310115/T-1/event.json",
        "#\n+/+\na/b",
        "+/b\n#\n$SYS/b",
        "$SYS/#\n$SYS/+\n$SYS/broker",
        "a/#\na\na",
        "a//+\na/+/\na//",
        "$share/g/a\n$share\n$share/g",
        "a#\na/+b\n/",
        "电梯/+\n电梯/#\n电梯/a",
        "lift/v1/+/+/presence\nlift/v1/350102/+/presence\nlift/v1/350102/T1/presence",
        "lift/+/310115\nlift/#\nlift/v1/000000/T1/event",
    ];
    (1..).zip(texts).map(|(number, text)| Seed::new("topics", format!("{number:02}"), text)).collect()
}
