//! Calling the admin API: with the owner's credential file, or a sign-in.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use proto::{enrolment::CONTROLLER_NAME, v1};
use runtime::dial::dial;
use serde::{Deserialize, Serialize};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub fn find(named: Option<&Path>) -> anyhow::Result<(PathBuf, Self)> {
        let candidates = match named {
            Some(path) => vec![path.to_owned()],
            None => [login_file(), Some(PathBuf::from("./postern-data/owner.json"))].into_iter().flatten().collect(),
        };
        for path in &candidates {
            // A file that was named and is not there is an error of its own.
            if path.exists() || named.is_some() {
                let bytes =
                    runtime::files::read_private(path).with_context(|| format!("reading {}", path.display()))?;
                let credential = serde_json::from_slice(&bytes);
                return Ok((path.clone(), credential.with_context(|| format!("reading {}", path.display()))?));
            }
        }
        bail!(
            "no credential: run this beside ./postern-data, name a file with --credential, or sign in with `postern login`"
        )
    }

    /// When the certificate ends, in seconds since 1970, if there is one.
    pub fn certificate_ends_s(&self) -> Option<i64> {
        let leaf = runtime::tls::pem_certificates(self.certificate.as_ref()?.as_bytes()).ok()?.into_iter().next()?;
        runtime::tls::validity_s(&leaf).map(|(_, end_s)| end_s)
    }

    fn tls(&self) -> anyhow::Result<rustls::ClientConfig> {
        let authorities = runtime::tls::pem_certificates(self.authority.as_bytes())?;
        let roots = runtime::tls::roots(authorities.iter().map(|it| it.as_ref()))?;
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let chain = runtime::tls::pem_certificates(certificate.as_bytes())?;
                Some((chain, runtime::tls::pem_key(key.as_bytes())?))
            }
            (Some(_) | None, _) => None,
        };
        Ok(runtime::tls::link_client(roots, identity)?)
    }

    /// Why a call failed, for whoever typed it. An answer of the controller says
    /// enough by itself; a connection that broke says which one and with what.
    pub fn explain(&self, path: &Path, status: &Status) -> anyhow::Error {
        // Only what broke on this side has a cause; causes do not travel.
        let Some(broke) = status.source() else {
            return match status.message() {
                "" => anyhow::anyhow!("the controller answered {}", status.code()),
                message => anyhow::anyhow!("{message}"),
            };
        };
        let mut why = runtime::telemetry::chain(broke);
        let now_s = runtime::Clock::default().now_ms() / 1000;
        if let Some(ended_s) = self.certificate_ends_s().filter(|it| *it <= now_s) {
            let ended = crate::output::time(ended_s * 1000);
            why = format!(
                "its certificate ended at {ended}; a controller that runs writes a new owner.json in time ({why})"
            );
        }
        let what = format!("the connection to the controller at {} broke, with {}", self.controller, path.display());
        anyhow::anyhow!(why).context(what)
    }

    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        runtime::files::write_private(path, &serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// Where `postern login` keeps its tokens.
#[expect(clippy::disallowed_methods, reason = "the command line is an edge")]
pub fn login_file() -> Option<PathBuf> {
    let home = std::env::var("XDG_CONFIG_HOME").ok().map(PathBuf::from);
    let home = home.or_else(|| std::env::var("HOME").ok().map(|it| PathBuf::from(it).join(".config")));
    home.map(|it| it.join("postern/login.json"))
}

/// Adds the bearer token, if there is one.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Bearer>;

/// A connection to the admin API.
#[derive(Clone)]
pub struct Admin {
    channel: Channel,
    bearer: Bearer,
}

macro_rules! services {
    ($($name:ident => $module:ident :: $client:ident),* $(,)?) => {$(
        pub fn $name(&self) -> v1::$module::$client<Service> {
            v1::$module::$client::with_interceptor(self.channel.clone(), self.bearer.clone())
        }
    )*};
}

impl Admin {
    pub async fn connect(credential: &Credential) -> anyhow::Result<Self> {
        let tls = credential.tls().context("reading the certificates of the credential file")?;
        let channel = dial(&credential.controller, CONTROLLER_NAME, tls, CONNECT_TIMEOUT).await;
        let channel = channel.with_context(|| format!("reaching the controller at {}", credential.controller))?;
        let bearer = credential.token.as_ref().map(|it| format!("Bearer {}", it.access).parse()).transpose()?;
        Ok(Self { channel, bearer: Bearer(bearer) })
    }

    services! {
        applications => applications_client::ApplicationsClient,
        connector_groups => connector_groups_client::ConnectorGroupsClient,
        connectors => connectors_client::ConnectorsClient,
        users => users_client::UsersClient,
        groups => groups_client::GroupsClient,
        assignments => assignments_client::AssignmentsClient,
        policies => policies_client::PoliciesClient,
        batches => batches_client::BatchesClient,
        sessions => sessions_client::SessionsClient,
        history => history_client::HistoryClient,
        keys => keys_client::KeysClient,
        certificates => certificates_client::CertificatesClient,
        tenants => tenants_client::TenantsClient,
    }
}
