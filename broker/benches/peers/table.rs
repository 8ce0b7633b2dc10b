//! One table with aims.

use std::fmt;

#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    what: String,
    ours: String,
    mosquitto: String,
    aim: Option<(String, bool)>,
}

impl Table {
    /// A figure with an aim and whether it was met, or none.
    pub(crate) fn put(
        &mut self,
        what: impl Into<String>,
        ours: impl Into<String>,
        mosquitto: Option<String>,
        aim: Option<(&str, bool)>,
    ) {
        let row = Row {
            what: what.into(),
            ours: ours.into(),
            mosquitto: mosquitto.unwrap_or_else(|| "-".into()),
            aim: aim.map(|(aim, met)| (aim.to_owned(), met)),
        };
        println!("{row}");
        self.0.push(row);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (aim, verdict) = match &self.aim {
            Some((aim, true)) => (aim.as_str(), "PASS"),
            Some((aim, false)) => (aim.as_str(), "MISS"),
            None => ("", ""),
        };
        write!(f, "{:<46} {:>18} {:>18}  {aim:<22} {verdict}", self.what, self.ours, self.mosquitto)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<46} {:>18} {:>18}  {:<22} verdict", "", "gate", "mosquitto", "aim")?;
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
