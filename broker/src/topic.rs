//! Topic names and filters: which are well-formed, which filter matches or covers which.
//!
//! Pure string work after MQTT 3.1.1 and 5, section 4.7. Filters are parsed once ([`TopicFilter`]) and never
//! checked again.

use std::fmt;
use std::sync::Arc;

/// Bytes of a filter a client may subscribe to; the longest of ours has fewer than 120.
const FILTER_BYTES_MAX: usize = 512;

/// A well-formed topic filter, without `$share`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicFilter(Arc<str>);

/// Why a text is not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Empty, or longer than 512 bytes.
    #[error("a topic filter has 1 to 512 bytes")]
    Length,
    /// Holds a NUL character.
    #[error("a topic filter holds no NUL")]
    Nul,
    /// `#` before the end, or a wildcard that shares its level with other characters.
    #[error("`+` stands alone in its level, `#` alone in the last one")]
    Wildcard,
    /// `$share/...`: the hub has none.
    #[error("shared subscriptions are not offered")]
    Shared,
}

impl TopicFilter {
    /// Parses a filter.
    pub fn new(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() || text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::Length);
        }
        if text.contains('\0') {
            return Err(FilterError::Nul);
        }
        if text == "$share" || text.starts_with("$share/") {
            return Err(FilterError::Shared);
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let last = levels.peek().is_none();
            let well_formed = match level {
                "+" => true,
                "#" => last,
                _ => !level.contains(['+', '#']),
            };
            if !well_formed {
                return Err(FilterError::Wildcard);
            }
        }
        Ok(Self(text.into()))
    }

    /// Parses a filter for the rights of a [`Principal`](crate::Principal), in which a level may end in `*`: it
    /// selects every level that begins like it (`lift/v1/35*/#`), and covers a client's filter only where that
    /// one names the level.
    pub fn scope(text: &str) -> Result<Self, FilterError> {
        let levels: Vec<String> = text
            .split('/')
            // No filter or topic of a client holds a NUL.
            .map(|level| level.strip_suffix('*').map_or_else(|| level.to_owned(), |head| format!("{head}\0")))
            .collect();
        Self::new(text)?;
        Ok(Self(levels.join("/").into()))
    }

    /// The filter as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has `+` or `#`.
    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['+', '#'])
    }

    /// Whether `topic` (a name, without wildcards) is one this filter selects.
    pub fn matches(&self, topic: &str) -> bool {
        covers(&self.0, topic)
    }

    /// Whether every topic that `other` selects is one this filter selects too.
    pub fn covers(&self, other: &Self) -> bool {
        covers(&self.0, &other.0)
    }

    /// What every topic of this filter begins with.
    pub(crate) fn literal_prefix(&self) -> &str {
        let end = self.0.find(['+', '#']).unwrap_or(self.0.len());
        // `a/#` selects `a` as well, so the slash before `#` is not part of the prefix.
        if self.0[end..].starts_with('#') { self.0[..end].trim_end_matches('/') } else { &self.0[..end] }
    }

    /// Whether rumqttd's router may see it: it dies of non-ASCII text and refuses a leading `$`.
    pub(crate) fn is_for_hub(&self) -> bool {
        self.0.is_ascii() && !self.0.starts_with('$')
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for TopicFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::new(text)
    }
}

/// Level by level; `other` may hold wildcards itself, which only an equal or wider wildcard covers.
fn covers(filter: &str, other: &str) -> bool {
    // 4.7.2: a leading wildcard does not select topics that begin with `$`.
    if other.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut ours = filter.split('/');
    let mut theirs = other.split('/');
    loop {
        match (ours.next(), theirs.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(a), Some(b)) if a == b || begins(a, b) => {}
            _ => return false,
        }
    }
}

/// Whether `ours` is a level of [`TopicFilter::scope`] that selects `theirs`.
fn begins(ours: &str, theirs: &str) -> bool {
    ours.strip_suffix('\0').is_some_and(|head| theirs.starts_with(head) && !matches!(theirs, "+" | "#"))
}

/// Whether `topic` may be published to: not empty, no wildcard, no NUL.
pub(crate) fn is_topic_name(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0'])
}

/// Whether rumqttd's router may see `topic`: see [`TopicFilter::is_for_hub`].
pub(crate) fn is_topic_for_hub(topic: &str) -> bool {
    is_topic_name(topic) && topic.is_ascii() && !topic.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    #[test]
    fn filters_are_parsed() {
        for good in ["a", "#", "+", "a/#", "+/b/+", "a//b", "/", "$SYS/#", "电梯/+"] {
            assert_eq!(filter(good).as_str(), good);
        }
        let bad = [
            ("", FilterError::Length),
            ("a\0b", FilterError::Nul),
            ("a#", FilterError::Wildcard),
            ("#/a", FilterError::Wildcard),
            ("a/+b", FilterError::Wildcard),
            ("$share/group/a", FilterError::Shared),
        ];
        for (text, error) in bad {
            assert_eq!(TopicFilter::new(text), Err(error), "{text:?}");
        }
        assert_eq!(TopicFilter::new(&"a".repeat(513)), Err(FilterError::Length));
    }

    #[test]
    fn filters_match_topics() {
        let cases = [
            ("lift/v1/+/T1/#", "lift/v1/310115/T1/telemetry", true),
            ("lift/v1/+/T1/#", "lift/v1/310115/T1", true),
            ("lift/v1/+/T1/#", "lift/v1/310115/T2/telemetry", false),
            ("lift/v1/+/T1/#", "lift/v1/a/b/T1/telemetry", false),
            ("#", "a/b", true),
            ("#", "$SYS/b", false),
            ("+/b", "$SYS/b", false),
            ("$SYS/#", "$SYS/b", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("+", "a/b", false),
        ];
        for (pattern, topic, expected) in cases {
            assert_eq!(filter(pattern).matches(topic), expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn filters_cover_filters() {
        let cases = [
            ("lift/v1/310115/#", "lift/v1/310115/#", true),
            ("lift/v1/310115/#", "lift/v1/310115/+/telemetry", true),
            ("lift/v1/310115/#", "lift/v1/+/T1/telemetry", false),
            ("lift/v1/310115/#", "lift/v1/#", false),
            ("lift/v1/310115/#", "#", false),
            ("lift/+/x", "lift/#", false),
            ("lift/+/x", "lift/+/x", true),
        ];
        for (wide, narrow, expected) in cases {
            assert_eq!(filter(wide).covers(&filter(narrow)), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn a_scope_covers_what_begins_like_it() {
        let scope = TopicFilter::scope("lift/v1/35*/#").unwrap();
        assert!(scope.matches("lift/v1/350102/T1/telemetry"));
        assert!(!scope.matches("lift/v1/360102/T1/telemetry"));
        for (narrow, expected) in [
            ("lift/v1/350102/#", true),
            ("lift/v1/350102/+/telemetry", true),
            ("lift/v1/35*/#", true),
            ("lift/v1/+/T1/telemetry", false),
            ("lift/v1/#", false),
            ("lift/v1/3/#", false),
        ] {
            assert_eq!(scope.covers(&filter(narrow)), expected, "{narrow}");
        }
        assert!(TopicFilter::scope("*/#").unwrap().covers(&filter("a/b")));
        assert!(!TopicFilter::scope("*/#").unwrap().covers(&filter("+/b")));
        assert!(!filter("lift/v1/35*/#").matches("lift/v1/350102/T1"), "a client's star is a character");
    }

    #[test]
    fn hostile_names_never_reach_the_hub() {
        for topic in ["", "电梯", "a/电梯", "a/+", "#", "a\0", "$SYS/x"] {
            assert!(!is_topic_for_hub(topic), "{topic:?}");
        }
        assert!(is_topic_for_hub("lift/v1/310115/T1/telemetry"));
    }

    proptest! {
        #[test]
        fn what_a_covered_filter_matches_the_cover_matches(
            wide in "[ab+]/[ab+](/#)?", narrow in "[ab+]/[ab+](/[ab+])?(/#)?", topic in "[ab](/[ab]){0,3}",
        ) {
            let (wide, narrow) = (filter(&wide), filter(&narrow));
            if wide.covers(&narrow) && narrow.matches(&topic) {
                prop_assert!(wide.matches(&topic));
            }
            if narrow.matches(&topic) {
                prop_assert!(topic.starts_with(narrow.literal_prefix()));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,20}", topic in ".{0,20}") {
            if let Ok(filter) = TopicFilter::new(&text) {
                let _ = filter.matches(&topic);
                let _ = filter.literal_prefix();
            }
        }
    }
}
