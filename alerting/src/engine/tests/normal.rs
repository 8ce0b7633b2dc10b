//! A busy lift in normal service never raises anything.

use domain::{DoorState, Field, Floor};
use proptest::prelude::*;

use super::Lift;

/// One trip: how long each part takes, in seconds, and whether people get in and out.
#[derive(Debug, Clone)]
struct Trip {
    idle: f64,
    boards: bool,
    open: f64,
    start: f64,
    ride: f64,
    opens_after: f64,
    leaves: bool,
    restless: bool,
    levels_open: bool,
    delay: f64,
}

fn trip() -> impl Strategy<Value = Trip> {
    let times = (0.0..400.0, 2.0..40.0, 0.0..20.0, 3.0..90.0, 0.2..9.0, 0.0..5.0);
    let choices = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (times, choices).prop_map(|((idle, open, start, ride, opens_after, delay), choices)| Trip {
        idle,
        boards: choices.0,
        open,
        start,
        ride,
        opens_after,
        leaves: choices.1,
        restless: choices.2,
        levels_open: choices.3,
        delay,
    })
}

/// What a terminal tells of its door.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Doors {
    Full,
    Boolean,
    Steps,
}

fn open_door(lift: &mut Lift, at: f64, doors: Doors) {
    match doors {
        Doors::Full => lift.at(at).door(DoorState::Open),
        Doors::Boolean => lift.at(at).door(DoorState::NotClosed),
        Doors::Steps => {
            lift.at(at).door(DoorState::Opening);
            lift.at(at + 1.5).door(DoorState::Open)
        }
    };
}

fn ride(lift: &mut Lift, begin: f64, trip: &Trip, doors: Doors) -> f64 {
    let mut at = begin + trip.idle;
    lift.age = trip.delay;
    open_door(lift, at, doors);
    at += 2.0;
    if trip.boards {
        lift.at(at).people(true);
    }
    at += trip.open;
    if doors == Doors::Steps {
        lift.at(at - 1.5).door(DoorState::Closing);
    }
    lift.at(at).door(DoorState::Closed);
    if trip.restless && trip.boards {
        lift.at(at + 1.0).people(false);
        lift.at(at + 2.0).people(true);
    }
    at += 3.0 + trip.start;
    lift.at(at).run();
    at += trip.ride;
    if trip.levels_open && doors == Doors::Full {
        lift.at(at - 0.5).reading(|it| {
            it.door_zone = Field::Known(true);
            it.door_state = Field::Known(DoorState::Open);
        });
        lift.at(at).stop_level();
    } else {
        lift.at(at).stop_level().reading(|it| it.floor = Field::Known(Floor::new("5").unwrap()));
        at += trip.opens_after;
        open_door(lift, at, doors);
    }
    at += 3.0;
    if trip.leaves {
        lift.at(at).people(false);
    }
    at += trip.open;
    lift.at(at).door(DoorState::Closed);
    at + 1.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn normal_trips_raise_nothing_and_give_up_nothing(
        trips in prop::collection::vec(trip(), 1..20),
        doors in prop::sample::select(vec![Doors::Full, Doors::Boolean, Doors::Steps]),
        sends_sent in any::<bool>(),
        connected in any::<bool>(),
    ) {
        let mut lift = Lift::unknown();
        lift.sends_sent = sends_sent;
        if connected {
            lift.at(-120.0).presence(true);
        }
        lift.park();
        let mut at = 0.0;
        for trip in &trips {
            at = ride(&mut lift, at, trip, doors);
        }
        lift.at(at + 1000.0).clock();
        prop_assert_eq!(&lift.out, &[]);
    }

    /// After any number of normal trips, an entrapment is found, and at its time.
    #[test]
    fn the_entrapment_after_them_is_found(
        trips in prop::collection::vec(trip(), 0..8),
        doors in prop::sample::select(vec![Doors::Full, Doors::Boolean, Doors::Steps]),
        level in any::<bool>(),
    ) {
        let mut lift = Lift::unknown();
        lift.park();
        let mut at = 0.0;
        for trip in &trips {
            // A passenger who stays for five trips makes the sensor look stuck.
            at = ride(&mut lift, at, &Trip { leaves: true, ..trip.clone() }, doors);
        }
        lift.age = 0.0;
        at += 30.0;
        open_door(&mut lift, at, doors);
        lift.at(at + 2.0).people(true);
        lift.at(at + 6.0).door(DoorState::Closed);
        lift.at(at + 8.0).run();
        if level {
            lift.at(at + 20.0).stop_level();
            lift.at(at + 79.9).expect_nothing();
            lift.at(at + 80.0).expect("entrapment_at_level", 40);
        } else {
            lift.at(at + 20.0).stop_outside();
            lift.at(at + 49.9).expect_nothing();
            lift.at(at + 50.0).expect("entrapment_between_floors", 40);
        }
    }
}
