//! The gateway's clock, as rows and metrics keep it.

use time::OffsetDateTime;

/// Now, in microseconds since 1970.
pub fn now_micros() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}
