//! The forms of single values: pure questions, each beside the sentence that says what was expected.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use http::Uri;
use sluice_fhir::reference::is_id;

pub(super) const INSTITUTION: &str =
    r#"expected an institution's id: lower case letters, digits, "." and "-", at most 63"#;
pub(super) const WORD: &str =
    r#"expected lower case letters, digits and "-", at most 63: it is a word of a routing key"#;
pub(super) const CODE: &str = r#"expected codes: letters, digits, "-" and "_", as in "IRCP""#;
pub(super) const PURPOSE: &str = r#"expected a v3 PurposeOfUse code, as in "TREAT" or "HPAYMT""#;
pub(super) const REFERENCE: &str = r#"expected references, as in "Organization/insurers""#;
pub(super) const TYPE: &str = r#"expected FHIR resource types, as in "Observation""#;
pub(super) const ORIGIN: &str =
    r#"expected a name without white space or "+", at most 255 characters, as in "hospital.example/log""#;
pub(super) const BASE_URL: &str =
    r#"expected an absolute http or https URL without user, query and fragment, as in "https://hospital.example/fhir""#;
pub(super) const UPSTREAM_URL: &str =
    "expected an https URL without user and query, or an http one on a loopback address";
pub(super) const AMQP_URL: &str = r#"expected an AMQP URL, as in "amqps://broker.example:5671/%2f""#;
pub(super) const EXCHANGE: &str =
    r#"expected an exchange's name: letters, digits, "-", "_", "." and ":", at most 127, not starting with "amq.""#;

/// How an AMQP URL connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AmqpScheme {
    Plain { loopback: bool },
    Tls,
}

pub(super) fn is_institution(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with(['.', '-'])
        && !text.ends_with(['.', '-'])
}

pub(super) fn is_word(text: &str) -> bool {
    is_institution(text) && !text.contains('.')
}

pub(super) fn is_code(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// `Type/id`, or an absolute URL or URN.
pub(super) fn is_reference(text: &str) -> bool {
    let relative = text.split_once('/').is_some_and(|(name, id)| is_type(name) && is_id(id));
    let absolute = text.contains("://") || text.starts_with("urn:");
    (relative || absolute) && text.len() <= 1024 && !text.contains(char::is_whitespace)
}

/// The form of a resource type; whether R4 has it is the check's to say.
pub(super) fn is_type(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// C2SP signed-note: a key's name is not empty and holds neither white space nor a plus.
pub(super) fn is_origin(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// AMQP 0-9-1, `exchange-name`; names that start with `amq.` are the broker's own.
pub(super) fn is_exchange(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    (1..=127).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with("amq.")
}

pub(super) fn is_base_url(text: &str) -> bool {
    plain_url(text).is_some()
}

/// An upstream's base URL, if it may be used: health data goes in the clear on the loopback only.
pub(super) fn upstream_url(text: &str) -> Option<Uri> {
    let url = plain_url(text.trim_end_matches('/'))?;
    let allowed = url.scheme_str() == Some("https") || url.host().is_some_and(is_loopback);
    allowed.then_some(url)
}

/// An absolute http or https URL without user, query and fragment.
fn plain_url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let plain = matches!(url.scheme_str(), Some("http" | "https"))
        && url.host().is_some_and(|host| !host.is_empty())
        && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && url.query().is_none()
        && !text.contains('#');
    plain.then_some(url)
}

/// `None` unless it is an AMQP URL with a host.
pub(super) fn amqp_scheme(text: &str) -> Option<AmqpScheme> {
    let url: Uri = text.parse().ok()?;
    let host = url.host().filter(|host| !host.is_empty())?;
    match url.scheme_str()? {
        "amqps" => Some(AmqpScheme::Tls),
        "amqp" => Some(AmqpScheme::Plain { loopback: is_loopback(host) }),
        _ => None,
    }
}

/// Does the URL hold a password? Also true of one that cannot be read but has an `@` after a `:`.
pub(super) fn amqp_password(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn sha256(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// The path without `.` and with `..` taken back, as far as names alone can tell.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_seen_wherever_it_stands() {
        for url in ["amqps://a:b@host", "amqps://a:@host/%2f", "amqps://a:b@c@host", "a:b@host"] {
            assert!(amqp_password(url), "{url}");
        }
        for url in ["amqps://host:5671/%2f", "amqps://a@host:5671", "amqp://[::1]:5672"] {
            assert!(!amqp_password(url), "{url}");
        }
    }

    #[test]
    fn plain_connections_stay_in_the_house() {
        assert_eq!(amqp_scheme("amqp://127.0.0.1:5672"), Some(AmqpScheme::Plain { loopback: true }));
        assert_eq!(amqp_scheme("amqp://[::1]:5672/%2f"), Some(AmqpScheme::Plain { loopback: true }));
        assert_eq!(amqp_scheme("amqp://user:pass@127.0.0.1.example"), Some(AmqpScheme::Plain { loopback: false }));
        assert_eq!(amqp_scheme("http://127.0.0.1"), None);
        assert!(upstream_url("http://localhost:8080/fhir/").is_some_and(|url| url.path() == "/fhir"));
        assert_eq!(upstream_url("http://fhir.example"), None);
        assert_eq!(upstream_url("https://user@fhir.example"), None);
    }

    #[test]
    fn folders_are_compared_without_detours() {
        assert_eq!(normal(Path::new("./data/../data/./store")), Path::new("data/store"));
        assert_eq!(normal(Path::new("../a")), Path::new("../a"));
    }

    #[test]
    fn a_digest_has_64_digits() {
        assert_eq!(sha256(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(sha256(&"+f".repeat(32)), None);
        assert_eq!(sha256("0f"), None);
    }
}
