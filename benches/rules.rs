//! Cost of showing one reading to the rules, by size of the fleet. `cargo bench --bench rules`

mod support;

use std::hint::black_box;
use std::time::Instant;

use alerting::engine::{Engine, Input, ThresholdsBook};
use domain::{Area, Timestamp};

fn main() {
    println!("{:>8} {:>12} {:>12}", "lifts", "ns/reading", "transitions");
    for lifts in [1_000, 10_000, 60_000] {
        let mut engine = Engine::new(ThresholdsBook::default());
        let area = Area::from_number(350_102).expect("an area");
        let begin = Timestamp::from_millis(1_763_769_600_000);
        let rounds = 600_000 / lifts;
        let inputs: Vec<_> = (0..lifts * (rounds + 1))
            .map(|n| {
                let one = support::incoming(n, lifts, begin);
                let (elevator_id, terminal_id) = (one.elevator_id, one.terminal_id);
                Input::Message { elevator_id, terminal_id, area, arrival: one.arrival, message: one.message }
            })
            .collect();
        let mut inputs = inputs.into_iter();
        let mut out = Vec::new();
        // The first reading of each lift makes its state.
        for input in inputs.by_ref().take(lifts as usize) {
            engine.input(input, &mut out);
        }
        let count = inputs.len();
        let began = Instant::now();
        for input in inputs {
            engine.input(black_box(input), &mut out);
        }
        let ns = began.elapsed().as_nanos() / count as u128;
        println!("{lifts:>8} {ns:>12} {:>12}", out.len());
    }
}
