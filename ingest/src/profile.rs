//! The meaning of raw codes. One profile so far: GB/T 24476-2017 with the Chongqing additions.

use std::sync::LazyLock;

use domain::{FaultKind, fault_by_gb_code, fault_by_slug};

/// The meaning of a code in profile `gb24476`: a slug of the taxonomy, or a number of the standard
/// (DOMAIN.md 4, "Code" column: GB and CQ). Anything else means `unknown_code`; the raw text is kept.
pub fn gb24476(raw: &str) -> &'static FaultKind {
    static UNKNOWN: LazyLock<&'static FaultKind> =
        LazyLock::new(|| fault_by_slug("unknown_code").expect("the taxonomy has a row for unknown codes"));
    fault_by_slug(raw).or_else(|| raw.parse().ok().and_then(fault_by_gb_code)).unwrap_or(*UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_numbers_and_unknown_codes() {
        assert_eq!(gb24476("entrapment").slug, "entrapment");
        assert_eq!(gb24476("5").slug, "unintended_movement");
        assert_eq!(gb24476("93").slug, "entrapment_at_level");
        assert_eq!(gb24476("9").slug, "unknown_code", "9 is top overrun in the exchange schema only");
        assert_eq!(gb24476("F9999").slug, "unknown_code");
    }
}
