//! Cost of decoding one publish. `cargo bench --bench decode`

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use domain::{
    BootId, CarStatus, DeviceKind, Direction, Field, Floor, Reading, Seq, TelemetryBatch, Timestamp,
};
use ingest::{ProfileView, Profiles, decode};

fn main() {
    divan::main();
}

fn batch(count: i64) -> Vec<u8> {
    let reading = |index: i64| {
        let mut reading =
            Reading::new(Seq(70_000 + index), Timestamp::from_millis(1_763_769_600_123 + index * 1000));
        reading.car_status = Field::Known(CarStatus::Running);
        reading.direction = Field::Known(Direction::Up);
        reading.door_zone = Field::Known(false);
        reading.floor = Floor::new("12").map_or(Field::Absent, Field::Known);
        reading.position_mm = Field::Known(33_250);
        reading.velocity_mm_s = Field::Known(1_750);
        reading.load_kg = Field::Known(225);
        reading
    };
    proto::encode::telemetry(&TelemetryBatch {
        boot: BootId(7),
        sent: Some(Timestamp::from_millis(1_763_769_600_200)),
        prev_boot_last_seq: None,
        dropped: None,
        readings: (0..count).map(reading).collect(),
    })
}

#[divan::bench(args = [1, 50, 1000])]
fn protobuf(bencher: Bencher<'_, '_>, readings: i64) {
    let payload = batch(readings);
    bencher
        .counter(ItemsCount::new(readings.cast_unsigned()))
        .bench(|| decode(black_box("lift/v1/350102/sim-000001/telemetry"), black_box(&payload), view()));
}

#[divan::bench]
fn json(bencher: Bencher<'_, '_>) {
    let payload = br#"{"boot":7,"readings":[{"seq":1,"time":"2026-11-22T08:00:00.123+08:00","service_mode":1,
        "car_status":1,"car_direction":1,"door_zone":false,"door_state":2,"passengers":true,"floor":"12",
        "position_mm":33250,"velocity_mm_s":1750,"load_kg":225,"codes":[]}]}"#;
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| decode(black_box("lift/v1/350102/sim-000001/telemetry.json"), black_box(payload), view()));
}

/// The same reading in the words of a vendor, read with its profile.
#[divan::bench]
fn vendor_json(bencher: Bencher<'_, '_>) {
    let payload =
        br#"{"boot":7,"readings":[{"seq":1,"time":"2026-11-22 08:00:00","Service_Mode":1,"Car_Status":1,
        "Car_Direction":1,"Door_Zone":2,"Door_Status":1,"Passenger_Status":1,"floor":"12","position_mm":33250,
        "velocity_mm_s":1750,"load_kg":225,"Message_Code":[]}]}"#;
    let profile = Profiles::shipped().get("exchange").expect("it ships");
    let view = ProfileView { profile, kind: DeviceKind::Lift };
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench(|| decode(black_box("lift/v1/350102/sim-000001/telemetry.json"), black_box(payload), view));
}

fn view() -> ProfileView<'static> {
    ProfileView::canonical()
}
