//! Where the broker is, and who we are to it.
//!
//! Takes the settings' URL, or the file that holds it; gives lapin's form of it. Never prints a password, nor the text of
//! a URL that it could not read.

use std::fmt;

use lapin::auth::AuthProvider;
use lapin::uri::{AMQPScheme, AMQPUri};

use crate::config::BrokerAddress;

/// A URL that was understood. Displays without its password.
#[derive(Clone)]
pub(super) struct Address(AMQPUri);

/// SASL EXTERNAL: the client certificate says who we are.
pub(super) struct External;

impl Address {
    /// Reads the URL as it stands now: a file may have changed since the last connection.
    pub(super) fn read(address: &BrokerAddress) -> Result<Self, String> {
        match address {
            BrokerAddress::Url(url) => Self::parse(url),
            BrokerAddress::File(file) => {
                let secret = file.read().map_err(|error| format!("{}: {error}", file.path().display()))?;
                let url = secret.expose_str().ok_or_else(|| format!("{}: not UTF-8", file.path().display()))?;
                Self::parse(url)
            }
        }
    }

    fn parse(url: &str) -> Result<Self, String> {
        // The parser's own text may hold the URL.
        let wrong = || "an URL as in amqps://broker.example:5671/%2f was expected".to_owned();
        let mut uri: AMQPUri = url.parse().map_err(|_| wrong())?;
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // The parser takes `localhost` for an IPv6 address, and for no host at all.
        if let Some(bracketed) = host.strip_prefix('[') {
            let (address, _) = bracketed.split_once(']').ok_or_else(wrong)?;
            address.clone_into(&mut uri.authority.host);
        } else if host.is_empty() || host.starts_with(':') {
            return Err(wrong());
        }
        Ok(Self(uri))
    }

    /// Whether TLS is spoken.
    pub(super) fn tls(&self) -> bool {
        self.0.scheme == AMQPScheme::AMQPS
    }

    /// Host name or address, to connect to and to find in the broker's certificate.
    pub(super) fn host(&self) -> &str {
        &self.0.authority.host
    }

    /// TCP port.
    pub(super) fn port(&self) -> u16 {
        self.0.authority.port
    }

    /// What lapin takes, with a heartbeat in seconds.
    pub(super) fn uri(&self, heartbeat_seconds: u16) -> AMQPUri {
        let mut uri = self.0.clone();
        uri.query.heartbeat = Some(heartbeat_seconds);
        uri
    }
}

impl AuthProvider for External {}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}/{}", self.0.scheme, self.0.authority.host, self.0.authority.port, self.0.vhost)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_an_address_nor_its_error_shows_a_secret() {
        let address = Address::parse("amqps://user:CANARY@broker.example:5671/%2f").unwrap();
        assert_eq!(address.to_string(), "amqps://broker.example:5671//");
        assert!(address.tls());
        for wrong in ["http://user:CANARY@host", "amqp:CANARY", "CANARY", "", "amqp:///CANARY", "amqp://a:CANARY@:1/"] {
            let error = Address::parse(wrong).unwrap_err();
            assert!(!error.contains("CANARY"), "{error}");
        }
        assert!(!format!("{address:?}").contains("CANARY"));
    }

    #[test]
    fn the_parts_are_what_the_url_says() {
        let address = Address::parse("amqp://[::1]/care").unwrap();
        assert_eq!((address.host(), address.port(), address.tls()), ("::1", 5672, false));
        let uri = address.uri(7);
        assert_eq!((uri.vhost.as_str(), uri.query.heartbeat), ("care", Some(7)));
    }
}
