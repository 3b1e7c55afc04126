//! What controller, relays and connectors tell each other while a connector
//! joins or renews: the paths of the calls, the text of a join token, the name
//! in a connector's certificate, and the name by which controllers are reached.
//!
//! Not here: who may join, and which certificate is believed.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The path of `Enrolment.Enrol`, as relays pass it on.
pub const ENROL: &str = "/postern.v1.Enrolment/Enrol";
/// The path of `Enrolment.Renew`, as relays pass it on.
pub const RENEW: &str = "/postern.v1.Enrolment/Renew";
/// The name in a controller's certificate: controllers prove it whatever their address.
pub const CONTROLLER_NAME: &str = "controller.postern.internal";

/// The host at which relays await the connectors of an installation.
pub fn endpoint_host(domain: &str) -> String {
    format!("connect.{domain}")
}

/// A join token as it is handed out: `postern1.` and base64url of JSON. It is a
/// secret until it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenText {
    /// `HOST:PORT` of each relay.
    pub relays: Vec<String>,
    /// The name relays present on their connector endpoint.
    pub endpoint: String,
    /// SHA-256 of the authority's certificate, hexadecimal.
    pub authority: String,
    pub tenant: String,
    /// By which the controller finds the token, and what proves it.
    pub id: String,
    pub secret: String,
}

const JOIN_TOKEN_PREFIX: &str = "postern1.";

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum JoinTokenFault {
    #[error("it does not begin with {JOIN_TOKEN_PREFIX}")]
    Prefix,
    #[error("it is not base64url behind the prefix")]
    Encoding,
    #[error("a field is missing or of another type")]
    Fields,
    #[error("it names no relay")]
    NoRelay,
}

impl JoinTokenText {
    /// The text of the token, ready to be copied.
    pub fn encode(&self) -> String {
        // Strings and a list of strings always encode.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{JOIN_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Parses what somebody copied, with the white space around it.
    pub fn parse(text: &str) -> Result<Self, JoinTokenFault> {
        let encoded = text.trim().strip_prefix(JOIN_TOKEN_PREFIX).ok_or(JoinTokenFault::Prefix)?;
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| JoinTokenFault::Encoding)?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| JoinTokenFault::Fields)?;
        if token.relays.is_empty() { Err(JoinTokenFault::NoRelay) } else { Ok(token) }
    }
}

impl fmt::Debug for JoinTokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinTokenText({}, ..)", self.id)
    }
}

/// The URI in a connector's certificate: `postern://TENANT/GROUP/CONNECTOR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorUri<'a> {
    pub tenant: &'a str,
    pub group: &'a str,
    pub connector: &'a str,
}

const CONNECTOR_SCHEME: &str = "postern://";

/// Why the URIs of a certificate name no connector.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ConnectorUriFault {
    #[error("the certificate names no connector")]
    Missing,
    #[error("the certificate names more than one connector")]
    Several,
    #[error("the certificate's name is not {CONNECTOR_SCHEME}TENANT/GROUP/CONNECTOR")]
    Malformed,
}

impl<'a> ConnectorUri<'a> {
    /// Finds the one connector that the URIs of a certificate name.
    pub fn find(uris: impl IntoIterator<Item = &'a str>) -> Result<Self, ConnectorUriFault> {
        let mut named = uris.into_iter().filter_map(|uri| uri.strip_prefix(CONNECTOR_SCHEME));
        let name = named.next().ok_or(ConnectorUriFault::Missing)?;
        if named.next().is_some() {
            return Err(ConnectorUriFault::Several);
        }
        let parts: Vec<&str> = name.split('/').collect();
        match parts[..] {
            [tenant, group, connector] if parts.iter().all(|it| !it.is_empty()) => {
                Ok(Self { tenant, group, connector })
            }
            _ => Err(ConnectorUriFault::Malformed),
        }
    }
}

impl fmt::Display for ConnectorUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CONNECTOR_SCHEME}{}/{}/{}", self.tenant, self.group, self.connector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(relays: &[&str]) -> JoinTokenText {
        JoinTokenText {
            relays: relays.iter().map(|it| (*it).to_owned()).collect(),
            endpoint: endpoint_host("example.com"),
            authority: "00".repeat(32),
            tenant: "default".into(),
            id: "7".into(),
            secret: "shh".into(),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_else_says_why_not() {
        let text = token(&["relay:443"]).encode();
        assert_eq!(JoinTokenText::parse(&format!(" {text}\n")), Ok(token(&["relay:443"])));
        let of = |json: &str| format!("{JOIN_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
        for (broken, fault) in [
            ("hello", JoinTokenFault::Prefix),
            (&text["postern1.".len()..], JoinTokenFault::Prefix),
            ("postern1.!", JoinTokenFault::Encoding),
            (&of("{}"), JoinTokenFault::Fields),
            (&of("[]"), JoinTokenFault::Fields),
            (&token(&[]).encode(), JoinTokenFault::NoRelay),
        ] {
            assert_eq!(JoinTokenText::parse(broken), Err(fault), "{broken}");
        }
        assert!(!format!("{:?}", token(&[])).contains("shh"));
    }

    #[test]
    fn a_certificate_names_one_connector() {
        let name = ConnectorUri { tenant: "default", group: "berlin", connector: "one" };
        let uri = name.to_string();
        assert_eq!(uri, "postern://default/berlin/one");
        assert_eq!(ConnectorUri::find([uri.as_str()]), Ok(name.clone()));
        assert_eq!(ConnectorUri::find(["https://example.com/", uri.as_str()]), Ok(name));
        assert_eq!(ConnectorUri::find(["postern-user://default/alice"]), Err(ConnectorUriFault::Missing));
        assert_eq!(ConnectorUri::find([uri.as_str(), uri.as_str()]), Err(ConnectorUriFault::Several));
        for broken in ["postern://", "postern://default/berlin", "postern://default/berlin/one/two", "postern://a//b"] {
            assert_eq!(ConnectorUri::find([broken]), Err(ConnectorUriFault::Malformed), "{broken}");
        }
    }
}
