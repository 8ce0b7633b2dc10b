use proptest::prelude::*;

use super::*;
use crate::fault::{Fault, FaultKind};

fn start() -> Timestamp {
    "2026-11-22T07:30:00+08:00".parse().unwrap()
}

fn lift(seed: u64) -> Lift {
    let spec = Spec::draw(&mut ChaCha8Rng::seed_from_u64(seed));
    Lift::new(spec, seed, start())
}

/// Drives a lift in small steps and hands every observation to `look`.
fn watch(lift: &mut Lift, span: Duration, step: Duration, mut look: impl FnMut(&Lift, Observation)) {
    let end = lift.now().plus(span);
    while lift.now() < end {
        let next = lift.now().plus(step).min(lift.next_change()).max(lift.now());
        lift.advance(next);
        look(lift, lift.observe());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_healthy_lift_obeys_physics(seed in any::<u64>()) {
        let mut lift = lift(seed);
        let limits = lift.spec().limits;
        let (mut last, mut last_at) = (lift.motion(), lift.now());
        let (mut runs, mut problem) = (0, None);
        watch(&mut lift, Duration::from_hours(2), Duration::from_millis(100), |lift, seen| {
            let (motion, step) = (lift.motion(), lift.now().since(last_at).as_secs_f64());
            let mut must = |holds: bool, what: &'static str| {
                if !holds && problem.is_none() {
                    problem = Some(format!("{what} at {}: {motion:?} after {last:?}, {seen:?}", lift.now()));
                }
            };
            must(motion.velocity.abs() <= limits.speed + 1e-6, "speed");
            must(motion.acceleration.abs() <= limits.acceleration + 1e-6, "acceleration");
            // A phase ends on a whole microsecond, so both its ends may be off by that much.
            let slack = limits.jerk * 3e-6 + 1e-9;
            must((motion.acceleration - last.acceleration).abs() <= limits.jerk * step + slack, "jerk");
            must((motion.position - last.position).abs() <= limits.speed * step + 1e-5, "no jumps");
            must(seen.door_state.is_closed() || motion.velocity == 0.0, "moves with its door open");
            must(seen.door_state.is_closed() || seen.door_zone, "door open outside the zone");
            let level = (motion.position - lift.spec().level(seen.floor)).abs() < 1e-3;
            must(seen.car_status == CarStatus::Running || level, "stands off level");
            must(seen.load_kg >= 0 && seen.load_kg <= lift.spec().load_kg_max, "load");
            must((seen.load_kg == 0) == (seen.people == 0), "people have weight");
            must(seen.floor < lift.spec().floors, "in the building");
            must(seen.reading(domain::Seq(1), lift.now()).check().is_ok(), "a reading in range");
            (last, last_at) = (motion, lift.now());
            runs = lift.runs();
        });
        prop_assert_eq!(problem, None);
        prop_assert!(runs > 0, "nobody called in the morning peak");
    }

    #[test]
    fn the_steps_of_the_clock_do_not_matter(seed in any::<u64>(), step_ms in 1_u64..100_000) {
        let (mut fine, mut coarse) = (lift(seed), lift(seed));
        watch(&mut fine, Duration::from_mins(40), Duration::from_millis(step_ms), |_, _| {});
        coarse.advance(fine.now());
        prop_assert_eq!(fine.observe(), coarse.observe());
    }

    #[test]
    fn every_fault_strikes_and_ends(
        seed in any::<u64>(), kind in prop::sample::select(&FaultKind::ALL[..]), wait_s in 0_u64..600,
    ) {
        let mut lift = lift(seed);
        lift.advance(start().plus(Duration::from_secs(wait_s)));
        let hold = Duration::from_secs(90);
        let fault = Fault::new(kind).lasting(hold);
        prop_assert!(lift.inject(fault));
        // A rescue at 0.3 m/s over half a floor takes 10 s; a run from top to bottom at 1 m/s under 2 min.
        lift.advance(lift.now().plus(Duration::from_mins(15)));
        let episodes = lift.take_episodes();
        prop_assert_eq!(episodes.len(), 1, "{:?}", lift);
        let episode = episodes[0];
        prop_assert_eq!(episode.kind, kind);
        prop_assert!(episode.end.is_some(), "{:?}", lift);
        prop_assert_eq!(episode.expected.is_none(), kind == FaultKind::DoorReclose);
        prop_assert!(!kind.needs_passengers() || episode.people > 0);
        prop_assert!(!lift.in_trouble());
        prop_assert!(lift.take_episodes().is_empty());
        let runs = lift.runs();
        lift.advance(lift.now().plus(Duration::from_hours(3)));
        prop_assert!(lift.runs() > runs, "back in service");
    }
}

#[test]
fn an_entrapment_looks_like_one_until_the_release() {
    for seed in 0..40 {
        let mut lift = lift(seed);
        lift.inject(Fault::new(FaultKind::EntrapmentBetweenFloors).until_released().with_device_code());
        lift.advance(start().plus(Duration::from_mins(4)));
        let seen = lift.observe();
        assert_eq!(seen.car_status, CarStatus::Stopped, "seed {seed}");
        assert!(!seen.door_zone && seen.people > 0 && seen.door_state == DoorState::Closed, "seed {seed}");
        let codes: Vec<_> = seen.codes.slugs().collect();
        assert_eq!(codes, ["stop_outside_zone", "entrapment_between_floors"]);
        let begin = lift.take_episodes()[0].begin;
        assert!(begin.since(start()) < Duration::from_mins(2), "strikes soon");

        lift.advance(lift.now().plus(Duration::from_hours(1)));
        assert_eq!(lift.observe().people, seen.people, "people do not vanish behind closed doors");
        lift.release();
        lift.advance(lift.now().plus(Duration::from_mins(1)));
        let episode = lift.take_episodes()[0];
        assert!(episode.end.is_some(), "seed {seed}: {lift:?}");
        assert_eq!(lift.observe().codes, Codes::default());
    }
}

#[test]
fn an_entrapment_at_level_keeps_the_door_shut() {
    let mut lift = lift(7);
    lift.inject(Fault::new(FaultKind::EntrapmentAtLevel).until_released());
    lift.advance(start().plus(Duration::from_mins(5)));
    let seen = lift.observe();
    assert!(seen.door_zone && seen.people > 0 && seen.door_state == DoorState::Closed);
    assert_eq!(lift.take_episodes()[0].expected, Some("entrapment_at_level"));
}

#[test]
fn a_day_has_about_the_trips_it_should() {
    let (mut runs, mut asked) = (0.0, 0.0);
    for seed in 0..30 {
        let mut lift = lift(seed);
        asked += lift.spec().trips_per_day;
        lift.advance(start().plus(Duration::from_hours(24)));
        runs += lift.runs() as f64;
    }
    assert!((runs / asked - 1.0).abs() < 0.12, "{runs} runs for {asked}");
}

#[test]
fn too_many_faults_are_refused() {
    let mut lift = lift(3);
    let taken = (0..20).filter(|_| lift.inject(Fault::new(FaultKind::PowerCut))).count();
    assert!((8..20).contains(&taken), "{taken}");
}
