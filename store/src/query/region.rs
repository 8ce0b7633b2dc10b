//! Regions as ranges of division codes.

use domain::Area;

/// First and last codes of the regions, sorted, without overlap: who lies in two of them is counted once.
pub(super) fn ranges(regions: &[Area]) -> (Vec<i32>, Vec<i32>) {
    let mut covered: Vec<_> = regions.iter().map(|region| region.covered()).collect();
    covered.sort_unstable_by_key(|codes| (*codes.start(), *codes.end()));
    let mut firsts: Vec<i32> = Vec::with_capacity(covered.len());
    let mut lasts: Vec<i32> = Vec::with_capacity(covered.len());
    for codes in covered {
        let (first, last) = (codes.start().cast_signed(), codes.end().cast_signed());
        match lasts.last_mut() {
            Some(before) if first <= *before + 1 => *before = last.max(*before),
            _ => {
                firsts.push(first);
                lasts.push(last);
            }
        }
    }
    (firsts, lasts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_division_is_in_as_many_ranges_as_it_is_in_regions_but_at_most_one(
            codes in proptest::collection::vec((0..40_u32, 0..4_u32, 0..4_u32), 0..8),
            probe in (0..40_u32, 0..5_u32, 0..5_u32),
        ) {
            let number = |(province, city, county): (u32, u32, u32)| province * 10_000 + city * 100 + county;
            let regions: Vec<_> = codes.into_iter().map(|code| Area::from_number(number(code)).unwrap()).collect();
            let probe = Area::from_number(number(probe)).unwrap();
            let (firsts, lasts) = ranges(&regions);
            let at = probe.number().cast_signed();
            let inside = firsts.iter().zip(&lasts).filter(|(first, last)| (**first..=**last).contains(&at)).count();
            prop_assert_eq!(inside, usize::from(regions.iter().any(|region| region.covers(probe))));
        }
    }
}
