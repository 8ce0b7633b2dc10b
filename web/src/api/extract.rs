//! Reading requests, with our own words for what is wrong.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::limits;
use crate::problem::Problem;

/// The query of a request; unknown parameters are refused by the types, not passed over.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|error| {
            // axum's own sentence hides the cause one level down.
            let cause =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Problem::bad_request(format!("query: {cause}"))
        })?;
        Ok(Self(params))
    }
}

/// The size of a page.
pub(crate) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(limits::PAGE_ITEMS_DEFAULT);
    if limit == 0 || limit > limits::PAGE_ITEMS_MAX {
        let max = limits::PAGE_ITEMS_MAX;
        return Err(Problem::bad_request(format!("limit is {limit}, but must lie between 1 and {max}")));
    }
    Ok(limit)
}

/// One parameter as its type; `example` shows a right one.
pub(crate) fn parse<T: std::str::FromStr>(name: &str, text: &str, example: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::bad_request(format!("{name} is '{text}', but must be like {example}")))
}

/// The same for one that may be left out.
pub(crate) fn parse_option<T: std::str::FromStr>(
    name: &str,
    text: Option<&str>,
    example: &str,
) -> Result<Option<T>, Problem> {
    text.map(|text| parse(name, text, example)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_a_size() {
        assert_eq!(limit(None), Ok(100));
        assert_eq!(limit(Some(500)), Ok(500));
        for bad in [0, 501, u32::MAX] {
            assert!(limit(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_named_with_a_right_one() {
        let problem = parse::<domain::Area>("area", "35010", "350102").unwrap_err();
        assert_eq!(problem, Problem::bad_request("area is '35010', but must be like 350102"));
    }
}
