//! What kind of device an elevator is (设备种类, DOMAIN.md 2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ParseSlugError;

/// Kind of device. Escalators and walks have enumerations of their own: nothing of theirs is ever read with a
/// lift's table (DOMAIN.md 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// 电梯: the only kind with entrapment rules.
    #[default]
    Lift,
    /// 自动扶梯.
    Escalator,
    /// 自动人行道.
    Walk,
    /// 杂物电梯.
    Dumbwaiter,
}

impl DeviceKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Lift, Self::Escalator, Self::Walk, Self::Dumbwaiter];

    /// Its name in the registry.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Lift => "lift",
            Self::Escalator => "escalator",
            Self::Walk => "walk",
            Self::Dumbwaiter => "dumbwaiter",
        }
    }

    /// Speaks the enumerations of escalators.
    pub const fn is_escalator(self) -> bool {
        matches!(self, Self::Escalator | Self::Walk)
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.slug())
    }
}

impl FromStr for DeviceKind {
    type Err = ParseSlugError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.slug() == text);
        found.ok_or_else(|| ParseSlugError { what: "device kind", text: text.to_owned() })
    }
}
