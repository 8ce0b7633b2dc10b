//! Identities. Each is a type of its own, so that a terminal can never stand where an elevator is meant.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A terminal id is 1 to 64 characters of `A-Z a-z 0-9 _ -` (DESIGN.md 3).
    #[error("a terminal id is 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'")]
    Terminal,
    /// An area is a division code of GB/T 2260.
    #[error("an area is a 6-digit division code (GB/T 2260)")]
    Area,
}

/// A monitoring terminal (监测终端); also its MQTT client id. 1 to 64 characters of `[A-Za-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TerminalId(Arc<str>);

impl TerminalId {
    /// Checks and takes a text.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(good);
        if fits { Ok(Self(text.into())) } else { Err(IdError::Terminal) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TerminalId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for TerminalId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl TryFrom<String> for TerminalId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(&text)
    }
}

impl From<TerminalId> for String {
    fn from(id: TerminalId) -> Self {
        id.as_str().to_owned()
    }
}

impl std::borrow::Borrow<str> for TerminalId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// An administrative division (行政区划) of GB/T 2260: six digits, the unit of partitioning and access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Area(u32);

impl Area {
    /// Checks and takes a number of at most six digits.
    pub fn from_number(number: u32) -> Result<Self, IdError> {
        if number <= 999_999 { Ok(Self(number)) } else { Err(IdError::Area) }
    }

    /// The code as a number, 0 to 999,999.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Whether this region contains `other`: its code without trailing `00` pairs is a prefix of the
    /// other's (DOMAIN.md 2). `000000` is the nation.
    pub fn covers(self, other: Area) -> bool {
        self.covered().contains(&other.0)
    }

    /// The divisions this region contains: consecutive numbers, first and last.
    pub fn covered(self) -> std::ops::RangeInclusive<u32> {
        let mut unit = 1;
        while unit < 1_000_000 && (self.0 / unit).is_multiple_of(100) {
            unit *= 100;
        }
        let first = self.0 / unit * unit;
        first..=first + (unit - 1)
    }
}

impl fmt::Display for Area {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:06}", self.0)
    }
}

impl FromStr for Area {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse().map(Self).map_err(|_| IdError::Area) } else { Err(IdError::Area) }
    }
}

impl TryFrom<String> for Area {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Area> for String {
    fn from(area: Area) -> Self {
        area.to_string()
    }
}

/// An elevator (电梯): opaque, ours, never reused. Registration codes are attributes of it (DOMAIN.md 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ElevatorId(pub i64);

/// The dense number the store gives to one (terminal, boot); part of a row's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub i32);

/// One run of a terminal's software between two restarts, named by the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub u32);

/// Sequence number within a boot. Positive ones are the terminal's; negative ones are derived from the
/// payload of a reading that came without one, so the two never meet (DESIGN.md 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub i64);

impl Seq {
    /// Whether the terminal itself gave this number.
    pub fn is_from_terminal(self) -> bool {
        self.0 >= 0
    }
}

impl fmt::Display for ElevatorId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// An alarm: a UUIDv5 of what began it, so that raising it twice is raising it once (DESIGN.md 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AlarmId(pub Uuid);

impl AlarmId {
    /// The namespace of alarm ids. Fixed for ever.
    const NAMESPACE: Uuid = Uuid::from_u128(0x6c69_6674_7761_7463_6800_616c_6172_6d01);

    /// The id of the alarm of `kind` that began with reading (terminal, boot, seq), or, where that reading
    /// had no sequence number of its terminal, with device time `began_us`.
    pub fn derive(
        elevator: ElevatorId,
        kind: &str,
        terminal: &TerminalId,
        boot: BootId,
        seq: Seq,
        began_us: i64,
    ) -> Self {
        let (tag, number) = if seq.is_from_terminal() { ('s', seq.0) } else { ('t', began_us) };
        let name = format!("{}/{kind}/{terminal}/{}/{tag}{number}", elevator.0, boot.0);
        Self(Uuid::new_v5(&Self::NAMESPACE, name.as_bytes()))
    }
}

impl fmt::Display for AlarmId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_ids_are_checked() {
        for good in ["a", "T-1_x", &"z".repeat(64)] {
            assert!(TerminalId::new(good).is_ok(), "{good}");
        }
        for bad in ["", &"z".repeat(65), "a/b", "a+", "é", "a b", "#"] {
            assert_eq!(TerminalId::new(bad), Err(IdError::Terminal), "{bad}");
        }
    }

    #[test]
    fn a_region_covers_its_divisions_by_pairs_of_digits() {
        let area = |text: &str| text.parse::<Area>().unwrap();
        assert!(area("350000").covers(area("350102")));
        assert!(area("350100").covers(area("350102")));
        assert!(!area("350100").covers(area("350202")));
        assert!(area("500000").covers(area("500101")));
        assert!(!area("500000").covers(area("510101")));
        assert!(area("000000").covers(area("350102")));
        assert!(area("350102").covers(area("350102")));
        assert!(!area("350102").covers(area("350100")));
        assert!("35010".parse::<Area>().is_err());
        assert!("+35010".parse::<Area>().is_err());
    }

    #[test]
    fn an_alarm_id_depends_on_what_began_it_only() {
        let terminal = TerminalId::new("t1").unwrap();
        let id = |seq, at| AlarmId::derive(ElevatorId(7), "entrapment", &terminal, BootId(1), Seq(seq), at);
        assert_eq!(id(5, 1), id(5, 2), "device time does not matter where there is a sequence number");
        assert_ne!(id(5, 1), id(6, 1));
        assert_eq!(id(-5, 1), id(-6, 1), "a derived number does not matter, device time does");
        assert_ne!(id(-5, 1), id(-5, 2));
        assert_eq!(id(5, 1).to_string(), "18081f82-f75c-55a7-bc4c-e282e51ede82");
    }
}
