//! The part of fuzzing that runs with every `cargo test`.

use fuzz::files::{self, Folder};
use fuzz::guard;
use fuzz::mutate::Mutator;
use fuzz::seeds;
use fuzz::targets::{ALL, Target};

/// Changed inputs for each target and run: a few seconds without optimisation.
const INPUTS: usize = 20_000;
const SEED: u64 = 0x11F7;

#[track_caller]
fn check(target: &Target, name: &str, input: &[u8]) {
    if let Err(broken) = guard::run(target, input) {
        panic!("{} {name}: {} at {}\n{}", target.name, broken.message, broken.place, files::hex(input));
    }
}

#[test]
fn the_corpus_is_what_the_generator_writes() {
    let seeds = seeds::all();
    assert!(seeds.len() <= 300, "{} files", seeds.len());
    assert!(seeds.iter().map(|seed| seed.bytes.len()).sum::<usize>() < 1 << 20);
    for target in &ALL {
        let mut expected: Vec<_> = seeds
            .iter()
            .filter(|seed| seed.target == target.name)
            .map(|seed| (seed.name.clone(), seed.bytes.clone()))
            .collect();
        expected.sort();
        assert!(!expected.is_empty(), "{} has no seeds", target.name);
        let found = files::read(Folder::Corpus, target).unwrap();
        assert!(found == expected, "{}: write it with `cargo run -p fuzz -- --write-corpus`", target.name);
    }
}

#[test]
fn corpus_and_regressions_keep_all_promises() {
    for target in &ALL {
        for folder in [Folder::Corpus, Folder::Regressions] {
            for (name, input) in files::read(folder, target).unwrap() {
                check(target, &name, &input);
            }
        }
    }
}

#[test]
fn changed_inputs_keep_all_promises() {
    for target in &ALL {
        let corpus = seeds::of(target);
        let mut mutator = Mutator::new(target.shape, &corpus, SEED);
        let mut input = Vec::new();
        for number in 0..INPUTS {
            mutator.next(&mut input);
            check(target, &format!("input {number}"), &input);
        }
    }
}
