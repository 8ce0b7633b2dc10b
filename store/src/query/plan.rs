//! What the planner means to do, read from EXPLAIN (FORMAT JSON).

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{QueryError, unreadable};
use crate::StoreError;

/// How the database means to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Indexes it uses.
    pub indexes: BTreeSet<String>,
    /// Tables and chunks it looks at, by whichever way.
    pub relations: BTreeSet<String>,
    /// Of those, what it reads from end to end.
    pub scanned: BTreeSet<String>,
    /// The whole plan.
    pub json: Value,
}

pub(super) fn read(row: &PgRow) -> Result<Plan, QueryError> {
    let json: Value = row.try_get(0).map_err(unreadable)?;
    let mut plan = Plan {
        indexes: BTreeSet::new(),
        relations: BTreeSet::new(),
        scanned: BTreeSet::new(),
        json: Value::Null,
    };
    let root = json.get(0).and_then(|first| first.get("Plan"));
    let root = root.ok_or_else(|| StoreError::Corrupt("EXPLAIN without a plan".to_owned()))?;
    plan.collect(root);
    plan.json = json;
    Ok(plan)
}

impl Plan {
    fn collect(&mut self, node: &Value) {
        let text = |name: &str| node.get(name).and_then(Value::as_str).map(str::to_owned);
        self.indexes.extend(text("Index Name"));
        self.relations.extend(text("Relation Name"));
        if text("Node Type").as_deref() == Some("Seq Scan") {
            self.scanned.extend(text("Relation Name"));
        }
        for child in node.get("Plans").and_then(Value::as_array).into_iter().flatten() {
            self.collect(child);
        }
    }

    /// How many chunks of hypertables it looks at.
    pub fn chunks(&self) -> usize {
        self.relations.iter().filter(|name| name.starts_with("_hyper_")).count()
    }

    /// Whether an index whose name ends so is used; a chunk's index ends with the name of the table's.
    pub fn uses(&self, ending: &str) -> bool {
        self.indexes.iter().any(|name| name.ends_with(ending))
    }
}
