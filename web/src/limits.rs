//! Every bound of the HTTP side, each with its reason.

use std::time::Duration;

/// Connections at once; further ones wait in the kernel's queue. A control room, its monitoring and some
/// programs need tens; each costs at most [`BUFFER_BYTES_MAX`] and a response.
pub const CONNECTIONS_MAX: usize = 256;
/// Bytes buffered per connection, which also bounds the head of a request.
pub const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of path and query; the longest sensible request of this API has some 200.
pub const URL_BYTES_MAX: usize = 2 * 1024;
/// For a request's head, and for the silence before the next request on a kept connection.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// For an answer. Beyond it a person has given up.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection is closed after its current request at this age, so that a reader who takes a byte at a time
/// cannot hold a place for ever.
pub const CONNECTION_LIFE_MAX: Duration = Duration::from_mins(10);
/// For requests under way when the server stops or a connection's life ends.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// Database queries at once, so that the API never takes the connections that dispatchers need.
pub const QUERIES_MAX: usize = 4;
/// Items of one page of a list.
pub const PAGE_ITEMS_MAX: u32 = 500;
/// Items of one page when the request does not say.
pub const PAGE_ITEMS_DEFAULT: u32 = 100;
/// Rows of the table on the status page; the counts above it are of all.
pub const PAGE_ALARMS_MAX: usize = 100;
/// All viewers of the status page share one reading of the open alarms for this long.
pub const PAGE_AGE_MAX: Duration = Duration::from_secs(1);
/// The status page waits this long for the database, less than its script waits for the page: while the
/// database is away, it shows everything else and says so.
pub const PAGE_QUERY_TIME_MAX: Duration = Duration::from_secs(2);
/// Readings per second are counted over this long.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);
