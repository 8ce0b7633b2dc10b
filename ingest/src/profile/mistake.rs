//! What is wrong with a profile, and where.

use std::fmt;
use std::ops::Range;

/// A mistake in the text of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(out, "; did you mean '{suggestion}'?"),
            None => Ok(()),
        }
    }
}

impl Mistake {
    pub(super) fn at(text: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        let before = text.get(..span.start.min(text.len())).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
            suggestion: None,
        }
    }

    /// With the nearest of `known` to what was written, if one is near.
    #[must_use]
    pub(super) fn near<'a>(mut self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let scored = known.into_iter().map(|name| (strsim::jaro_winkler(written, name), name));
        let best = scored.max_by(|left, right| left.0.total_cmp(&right.0));
        self.suggestion = best.filter(|(score, _)| *score > 0.8).map(|(_, name)| name.to_owned());
        self
    }
}
