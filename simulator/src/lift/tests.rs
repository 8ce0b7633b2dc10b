use super::*;
use proptest::prelude::*;

/// 08:00 in UTC+8, the busiest hour.
const MORNING: Timestamp = Timestamp::from_millis(1_763_769_600_000);

fn busy(seed: u64, floors: u16) -> Lift {
    let mut lift = Lift::new(seed, floors, MORNING);
    lift.set_trips_per_day(5_000.0);
    lift
}

fn at(seconds: f64) -> Timestamp {
    MORNING.plus(Duration::from_secs_f64(seconds))
}

/// Advances in steps of 100 ms until `wanted`, at most 10 minutes.
fn until(lift: &mut Lift, wanted: impl Fn(&Observation) -> bool) -> Vec<Happening> {
    let mut happened = Vec::new();
    for _ in 0..6_000 {
        if wanted(&lift.observe()) {
            return happened;
        }
        happened.extend(lift.advance(lift.now.plus(Duration::from_millis(100))));
    }
    panic!("not seen within 10 minutes: {:?}", lift.observe());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_lift_without_faults_is_sound(seed: u64, floors in 2..40_u16) {
        let mut lift = busy(seed, floors);
        let mut before = lift.observe();
        let mut trips = 0;
        for step in 1..12_000 {
            lift.advance(at(f64::from(step) * 0.05));
            let seen = lift.observe();
            let moved = (seen.position_mm - before.position_mm).abs();
            prop_assert!(f64::from(moved) <= Bounds::TRAVEL.speed * 50.0 + 1.0, "{moved} mm in 50 ms");
            prop_assert!(f64::from(seen.velocity_mm_s.abs()) <= Bounds::TRAVEL.speed * 1000.0 + 1.0);
            let gained = f64::from((seen.velocity_mm_s - before.velocity_mm_s).abs());
            prop_assert!(gained <= Bounds::TRAVEL.acceleration * 50.0 + 1.0, "{gained} mm/s in 50 ms");
            if seen.velocity_mm_s != 0 {
                prop_assert!(seen.door_state.is_closed());
                prop_assert_eq!(seen.car_status, CarStatus::Running);
            }
            if !seen.door_state.is_closed() {
                prop_assert!(seen.position_mm % 3000 == 0, "opens level only");
            }
            prop_assert!(seen.load_kg >= 0 && (seen.load_kg > 0) == seen.passengers);
            prop_assert!((0..i16::try_from(floors).unwrap()).contains(&seen.floor_ordinal));
            if seen.load_kg != before.load_kg {
                prop_assert_eq!(seen.door_state, DoorState::Open, "people pass open doors only");
            }
            trips += u32::from(before.car_status != seen.car_status);
            before = seen;
        }
        prop_assert!(trips > 4, "it has work");
        lift.set_trips_per_day(0.001);
        lift.advance(at(12_000.0));
        prop_assert!(matches!(lift.phase, Phase::Idle) && lift.is_level(lift.rest) && lift.people == 0);
    }

    #[test]
    fn looking_more_often_changes_nothing(seed: u64, looks in proptest::collection::vec(0.0..900.0_f64, 0..40)) {
        let (mut one, mut other) = (busy(seed, 12), busy(seed, 12));
        let mut looks = looks;
        looks.sort_by(f64::total_cmp);
        for look in looks {
            one.advance(at(look));
        }
        one.advance(at(900.0));
        other.advance(at(900.0));
        prop_assert_eq!(one.observe(), other.observe());
    }

    #[test]
    fn any_fault_at_any_time_begins_is_told_and_ends(seed: u64, after in 0.0..300.0_f64, which in 0..7_usize) {
        let fault = Fault::ALL[which];
        let mut lift = busy(seed, 10);
        let mut happened = lift.advance(at(after));
        let (done, more) = lift.inject(fault, at(after));
        prop_assert!(done);
        happened.extend(more);
        prop_assert!(!lift.inject(Fault::PowerCut, at(after)).0, "one fault at a time");
        happened.extend(lift.advance(at(after + 1_200.0)));
        happened.extend(lift.release(at(after + 1_200.0)));
        let began = happened.iter().filter(|one| matches!(one, Happening::Began(_, seen, _) if *seen == fault));
        prop_assert_eq!(began.count(), 1);
        let ended = happened.iter().filter(|one| matches!(one, Happening::Ended(_, seen) if *seen == fault));
        prop_assert_eq!(ended.count(), 1);
        let states: Vec<EventState> = happened.iter().filter_map(|one| match one {
            Happening::Code(_, code, state) if Some(*code) == fault.code() => Some(*state),
            _ => None,
        }).collect();
        let expected: &[EventState] =
            if fault.code().is_some() { &[EventState::Open, EventState::Close] } else { &[] };
        prop_assert_eq!(states, expected);
        prop_assert!(lift.observe().codes.is_empty());
        lift.set_trips_per_day(0.001);
        lift.advance(at(after + 3_600.0));
        prop_assert!(matches!(lift.phase, Phase::Idle) && lift.is_level(lift.rest), "{:?}", lift.phase);
    }
}

#[test]
fn an_entrapment_holds_people_between_floors_until_released() {
    for seed in 0..20 {
        let mut lift = busy(seed, 8);
        assert!(lift.inject(Fault::EntrapmentBetweenFloors, at(30.0)).0);
        let happened = until(&mut lift, |seen| !seen.codes.is_empty());
        assert!(happened.iter().any(|one| matches!(one, Happening::Began(_, _, true))), "people inside");
        for _ in 0..100 {
            lift.advance(lift.now.plus(Duration::from_secs(3)));
            let seen = lift.observe();
            assert_eq!((seen.car_status, seen.door_zone, seen.passengers), (CarStatus::Stopped, false, true));
            assert_eq!((seen.door_state, seen.codes.len()), (DoorState::Closed, 1));
        }
        lift.release(lift.now);
        until(&mut lift, |seen| seen.door_state == DoorState::Open && seen.door_zone);
        until(&mut lift, |seen| !seen.passengers);
    }
}

#[test]
fn a_power_cut_in_mid_travel_stops_the_car_where_it_is() {
    let mut lift = busy(3, 20);
    until(&mut lift, |seen| seen.velocity_mm_s.abs() > 1_500);
    lift.inject(Fault::PowerCut, lift.now);
    assert!(lift.observe().flags & Reading::FLAG_BATTERY_POWER != 0);
    until(&mut lift, |seen| seen.car_status == CarStatus::Stopped);
    let stood = lift.observe().position_mm;
    lift.advance(lift.now.plus(Duration::from_mins(5)));
    assert_eq!(lift.observe().position_mm, stood);
    lift.release(lift.now);
    until(&mut lift, |seen| seen.door_state == DoorState::Open);
}

#[test]
fn a_nuisance_press_happens_before_open_doors() {
    let mut lift = Lift::new(5, 8, MORNING);
    lift.inject(Fault::NuisancePress, MORNING);
    let happened = until(&mut lift, |seen| seen.flags & Reading::FLAG_ALARM_BUTTON != 0);
    assert_eq!(lift.observe().door_state, DoorState::Open);
    assert_eq!(happened.len(), 2, "{happened:?}");
    until(&mut lift, |seen| seen.codes.is_empty());
    assert_eq!(lift.observe().door_state, DoorState::Open, "the doors still stand open at its end");
}

#[test]
fn traffic_follows_the_hours() {
    assert!((HOUR_SHARES.iter().sum::<f64>() - 100.0).abs() < 1e-9);
    let mut lift = Lift::new(9, 10, MORNING);
    let mut per_hour = [0_u32; 24];
    let mut now = MORNING;
    for _ in 0..9_000 {
        lift.now = now.max(lift.next_call);
        now = lift.now;
        per_hour[((now.micros() + ZONE_OFFSET_US).div_euclid(HOUR_US) % 24) as usize] += 1;
        lift.next_call = lift.draw_call_time();
    }
    let share = |hour: usize| f64::from(per_hour[hour]) / 90.0;
    assert!((share(8) - 12.5).abs() < 2.0 && (share(3) - 0.5).abs() < 0.4, "{per_hour:?}");
}
