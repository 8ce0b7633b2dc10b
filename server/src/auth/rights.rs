//! What a client may publish and subscribe to.

use broker::{FilterError, Principal, PrincipalKind, TopicFilter};
use domain::Area;

/// What a terminal says; its last will goes to one of these as well. Presence is the server's word alone.
const PUBLISHED: [&str; 6] = ["telemetry", "telemetry.json", "event", "event.json", "stats", "stats.json"];
/// What is said to a terminal.
const SUBSCRIBED: [&str; 2] = ["down", "down.json"];

/// Its own topics by name, whatever area it believes itself in: a wrong one is put right, not refused, because
/// MQTT 3.1.1 could not tell it why.
pub(super) fn terminal(id: &str, area: Area) -> Result<Principal, FilterError> {
    let publish = PUBLISHED.iter().map(|leaf| TopicFilter::new(&format!("lift/v1/+/{id}/{leaf}")));
    let subscribe = SUBSCRIBED.iter().map(|leaf| TopicFilter::new(&format!("lift/v1/{area}/{id}/{leaf}")));
    Ok(Principal {
        kind: PrincipalKind::Terminal,
        publish: publish.collect::<Result<_, _>>()?,
        subscribe: subscribe.collect::<Result<_, _>>()?,
    })
}

/// Reads everything of its regions, those divisions included that are not known yet; publishes nothing.
pub(super) fn account(areas: &[Area]) -> Result<Principal, FilterError> {
    let subscribe = match areas {
        [] => vec![TopicFilter::new("lift/v1/#")?],
        areas => areas.iter().map(|area| TopicFilter::scope(&region(*area))).collect::<Result<_, _>>()?,
    };
    Ok(Principal { kind: PrincipalKind::Integration, publish: Vec::new(), subscribe })
}

/// `350000` is what begins with 35, `350102` itself.
fn region(area: Area) -> String {
    let code = area.to_string();
    let mut prefix = code.as_str();
    while let Some(shorter) = prefix.strip_suffix("00") {
        prefix = shorter;
    }
    match prefix.len() {
        0 => "lift/v1/#".to_owned(),
        6 => format!("lift/v1/{code}/#"),
        _ => format!("lift/v1/{prefix}*/#"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(text: &str) -> Area {
        text.parse().unwrap()
    }

    fn may(filters: &[TopicFilter], wanted: &str) -> bool {
        let wanted = TopicFilter::new(wanted).unwrap();
        filters.iter().any(|filter| filter.covers(&wanted))
    }

    #[test]
    fn a_terminal_speaks_and_hears_under_its_own_id_only() {
        let rights = terminal("t1", area("350102")).unwrap();
        assert_eq!(rights.kind, PrincipalKind::Terminal);
        for own in ["telemetry", "event.json", "stats"] {
            assert!(may(&rights.publish, &format!("lift/v1/350102/t1/{own}")), "{own}");
            assert!(may(&rights.publish, &format!("lift/v1/999999/t1/{own}")), "a wrong area: {own}");
            assert!(!may(&rights.publish, &format!("lift/v1/350102/t2/{own}")), "another's: {own}");
        }
        for foreign in ["presence", "down", "telemetry/x", "telemetry.xml"] {
            assert!(!may(&rights.publish, &format!("lift/v1/350102/t1/{foreign}")), "{foreign}");
        }
        assert!(may(&rights.subscribe, "lift/v1/350102/t1/down"));
        for foreign in
            ["lift/v1/350103/t1/down", "lift/v1/350102/t2/down", "lift/v1/350102/t1/telemetry", "#"]
        {
            assert!(!may(&rights.subscribe, foreign), "{foreign}");
        }
    }

    #[test]
    fn an_account_reads_its_regions_and_publishes_nothing() {
        let rights = account(&[area("350000"), area("360100"), area("110101")]).unwrap();
        assert_eq!((rights.kind, rights.publish.len()), (PrincipalKind::Integration, 0));
        for inside in
            ["lift/v1/350102/#", "lift/v1/359999/+/event", "lift/v1/360199/#", "lift/v1/110101/t/event"]
        {
            assert!(may(&rights.subscribe, inside), "{inside}");
        }
        for outside in
            ["lift/v1/360200/#", "lift/v1/110102/#", "lift/v1/+/t1/event", "lift/v1/#", "#", "$SYS/#"]
        {
            assert!(!may(&rights.subscribe, outside), "{outside}");
        }
        for nation in [account(&[]).unwrap(), account(&[area("000000")]).unwrap()] {
            assert!(may(&nation.subscribe, "lift/v1/#"));
            assert!(!may(&nation.subscribe, "#"));
        }
    }
}
