//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

const EXPECTED: &str = "a size such as 1048576 or \"256 MiB\"";
/// Longest suffix first, so that `MiB` is not read as `B`.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A number of bytes; written as a number, or with a unit (`"256 MiB"`, `"64KiB"`, `"1 GB"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

impl ByteSize {
    /// Mebibytes.
    pub(crate) const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// As the length of something in memory.
    pub(crate) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        let unit = UNITS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, *factor)));
        let (digits, factor) = unit.unwrap_or((text, 1));
        let digits = digits.trim_end();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        let count: u64 = digits.parse().map_err(|_| ())?;
        count.checked_mul(factor).map(Self).ok_or(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in UNITS[..3].iter().rev() {
            if self.0 > 0 && self.0.is_multiple_of(*factor) {
                return write!(out, "{} {name}", self.0 / factor);
            }
        }
        write!(out, "{} B", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(EXPECTED)
            }
            fn visit_u64<E: de::Error>(self, count: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(count))
            }
            fn visit_i64<E: de::Error>(self, count: i64) -> Result<ByteSize, E> {
                let wrong = || E::invalid_value(de::Unexpected::Signed(count), &self);
                u64::try_from(count).map(ByteSize).map_err(|_| wrong())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(|()| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_units() {
        let check = |text: &str, expected: Result<u64, ()>| {
            assert_eq!(text.parse::<ByteSize>().map(|size| size.0), expected, "{text}");
        };
        check("256 MiB", Ok(256 << 20));
        check("64KiB", Ok(64 << 10));
        check("1 GB", Ok(1_000_000_000));
        check("17", Ok(17));
        check("17 B", Ok(17));
        for bad in ["", "MiB", "-1", "1.5 MiB", "1 TiB", "1 mib", "+3", "99999999999 GiB"] {
            check(bad, Err(()));
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(count: u64) {
            prop_assert_eq!(ByteSize(count).to_string().parse::<ByteSize>(), Ok(ByteSize(count)));
        }
    }
}
