//! Credential of an administrator: which controller to call, the root its
//! certificate chains to, and who calls. An owner's file has a certificate, a
//! sign-in has tokens.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
};

use runtime::{
    Clock,
    tls::{link_client, pem_certificates, pem_key, roots, validity_s},
};
use rustls::pki_types::pem;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tonic::Status;

#[derive(Debug, Error)]
pub enum CredentialError {
    #[error(
        "no credential: run this beside ./postern-data, name a file with --credential, or sign in with `postern login`"
    )]
    Missing,
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("reading {}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("writing {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// What is wrong with the certificates of a credential.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error(transparent)]
    Pem(#[from] pem::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Why a call failed, for whoever made it.
#[derive(Debug, Error)]
pub enum CallError {
    /// The controller's own words, which say enough by themselves.
    #[error("{0}")]
    Answered(String),
    #[error("the connection to the controller at {controller} broke, with {}", path.display())]
    Broke { controller: String, path: PathBuf, source: BrokeBecause },
}

#[derive(Debug, Error)]
pub enum BrokeBecause {
    #[error("its certificate ended at {at}; a controller that runs writes a new owner.json in time ({cause})")]
    CertificateEnded { at: String, cause: String },
    #[error("{cause}")]
    Connection { cause: String },
}

/// How to reach a controller and who calls. Mode 0600.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    pub controller: String,
    /// PEM of the root that the controller's certificate chains to.
    pub authority: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Tokens>,
}

/// From `postern login`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
    pub expires_s: i64,
    pub token_url: String,
}

impl Credential {
    /// The file that was named, the sign-in, or the owner's file beside us.
    pub fn find(named: Option<&Path>) -> Result<(PathBuf, Self), CredentialError> {
        let candidates = match named {
            Some(path) => vec![path.to_owned()],
            None => [login_file(), Some(PathBuf::from("./postern-data/owner.json"))].into_iter().flatten().collect(),
        };
        // A file that was named and is not there is an error of its own.
        let found = candidates.into_iter().find(|path| path.exists() || named.is_some());
        let path = found.ok_or(CredentialError::Missing)?;
        let credential = Self::read(&path)?;
        Ok((path, credential))
    }

    pub fn read(path: &Path) -> Result<Self, CredentialError> {
        let read = |source| CredentialError::Read { path: path.to_owned(), source };
        let parse = |source| CredentialError::Parse { path: path.to_owned(), source };
        let bytes = runtime::files::read_private(path).map_err(read)?;
        serde_json::from_slice(&bytes).map_err(parse)
    }

    pub fn save(&self, path: &Path) -> Result<(), CredentialError> {
        let write = |source| CredentialError::Write { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(write)?;
        }
        let text = serde_json::to_vec_pretty(self).map_err(|error| write(error.into()))?;
        runtime::files::write_private(path, &text).map_err(write)
    }

    /// When the certificate ends, in seconds since 1970, if there is one.
    pub fn certificate_ends_s(&self) -> Option<i64> {
        let leaf = pem_certificates(self.certificate.as_ref()?.as_bytes()).ok()?.into_iter().next()?;
        validity_s(&leaf).map(|(_, end_s)| end_s)
    }

    pub(crate) fn tls(&self) -> Result<rustls::ClientConfig, TlsError> {
        let authorities = pem_certificates(self.authority.as_bytes())?;
        let roots = roots(authorities.iter().map(|it| it.as_ref()))?;
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                Some((pem_certificates(certificate.as_bytes())?, pem_key(key.as_bytes())?))
            }
            (Some(_) | None, _) => None,
        };
        Ok(link_client(roots, identity)?)
    }

    /// Why a call failed, for whoever typed it. An answer of the controller says
    /// enough by itself; a connection that broke says which one and with what.
    pub fn explain(&self, path: &Path, status: &Status) -> CallError {
        // Only what broke on this side has a cause; causes do not travel.
        let Some(broke) = status.source() else {
            return CallError::Answered(match status.message() {
                "" => format!("the controller answered {}", status.code()),
                message => message.to_owned(),
            });
        };
        let cause = runtime::telemetry::chain(broke);
        let now_s = Clock::default().now_ms() / 1000;
        let source = match self.certificate_ends_s().filter(|it| *it <= now_s) {
            Some(ended_s) => BrokeBecause::CertificateEnded { at: utc(ended_s), cause },
            None => BrokeBecause::Connection { cause },
        };
        CallError::Broke { controller: self.controller.clone(), path: path.to_owned(), source }
    }
}

/// Seconds since 1970 as people read them.
fn utc(s: i64) -> String {
    jiff::Timestamp::from_second(s).map_or(String::new(), |it| it.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// Where `postern login` keeps its tokens.
#[expect(clippy::disallowed_methods, reason = "where a user keeps files is told by the environment alone")]
pub fn login_file() -> Option<PathBuf> {
    let home = std::env::var("XDG_CONFIG_HOME").ok().map(PathBuf::from);
    let home = home.or_else(|| std::env::var("HOME").ok().map(|it| PathBuf::from(it).join(".config")));
    home.map(|it| it.join("postern/login.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_in_the_controllers_words_and_without_any_by_its_code() {
        let told = |status: Status| owner().explain(Path::new("owner.json"), &status).to_string();
        assert_eq!(told(Status::not_found("there is no app wiki")), "there is no app wiki");
        assert_eq!(told(Status::unavailable("")), format!("the controller answered {}", tonic::Code::Unavailable));
    }

    #[test]
    fn a_broken_connection_names_the_controller_the_file_and_the_cause() {
        let broke = Status::from_error(Box::new(io::Error::other("connection reset")));
        let error = owner().explain(Path::new("owner.json"), &broke);
        let told = runtime::telemetry::chain(&error);
        let expected = "the connection to the controller at https://c:8444 broke, with owner.json: connection reset";
        assert_eq!(told, expected);
    }

    #[test]
    fn a_file_that_was_named_and_is_not_there_is_said_to_be_unreadable() {
        let error = Credential::find(Some(Path::new("/nowhere/owner.json"))).err().map(|it| it.to_string());
        assert_eq!(error.as_deref(), Some("reading /nowhere/owner.json"));
    }

    fn owner() -> Credential {
        let controller = "https://c:8444".into();
        Credential { controller, authority: String::new(), certificate: None, key: None, token: None }
    }
}
