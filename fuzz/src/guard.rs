//! Runs a target on one input and tells how it ended.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::targets::Target;

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// File and line of the panic: findings at the same place are one.
    pub place: String,
    /// Its message.
    pub message: String,
}

thread_local! {
    static LAST: RefCell<Option<Broken>> = const { RefCell::new(None) };
    static WATCHED: RefCell<bool> = const { RefCell::new(false) };
}

/// Runs `target`; a panic comes back as an error instead of on the terminal.
pub fn run(target: &Target, input: &[u8]) -> Result<(), Broken> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !WATCHED.with_borrow(|watched| *watched) {
                return usual(info);
            }
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let message = info.payload_as_str().unwrap_or("panicked").to_owned();
            LAST.set(Some(Broken { place, message }));
        }));
    });
    WATCHED.set(true);
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    WATCHED.set(false);
    ended.map_err(|_| LAST.take().unwrap_or(Broken { place: "unknown".into(), message: "panicked".into() }))
}

/// Tries of [`shrink`].
const TRIES_MAX: usize = 20_000;

/// A smaller input that breaks at the same place.
pub fn shrink(target: &Target, input: &[u8], broken: &Broken) -> Vec<u8> {
    let mut small = input.to_vec();
    let mut size = small.len() / 2;
    let mut tries = 0;
    while size > 0 {
        let mut at = 0;
        while at < small.len() && tries < TRIES_MAX {
            let mut less = small.clone();
            less.drain(at..(at + size).min(small.len()));
            tries += 1;
            if run(target, &less).is_err_and(|other| other.place == broken.place) {
                small = less;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    small
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::Shape;

    #[test]
    fn what_breaks_is_made_small() {
        fn fragile(input: &[u8]) {
            assert!(!(input.contains(&7) && input.contains(&9)));
        }
        let target = Target { name: "fragile", run: fragile, shape: Shape::Json, weight: 1 };
        let mut input = vec![0; 100];
        (input[20], input[70]) = (9, 7);
        let broken = run(&target, &input).unwrap_err();
        assert_eq!(shrink(&target, &input, &broken), [9, 7]);
    }

    #[test]
    fn a_panic_comes_back_with_its_place() {
        fn fragile(input: &[u8]) {
            assert_ne!(input, b"bad", "this one");
        }
        let target = Target { name: "fragile", run: fragile, shape: Shape::Json, weight: 1 };
        assert_eq!(run(&target, b"good"), Ok(()));
        let broken = run(&target, b"bad").unwrap_err();
        assert!(broken.place.contains("guard.rs") && broken.message.contains("this one"), "{broken:?}");
    }
}
