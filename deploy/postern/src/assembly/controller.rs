//! The controller: its installation, the first owner, the port, and the owner's
//! credential for the command line beside it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use anyhow::Context;
use controller::{
    Settings, Surroundings,
    first_owner::{self, FirstOwner},
    server::{self, Controller},
};
use model::TenantId;
use runtime::{endings::What, hashing::Hashing};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Base, Vitals};
use crate::owner_file::OwnerFile;

/// A controller without a port.
pub struct ControllerRole {
    pub controller: Controller,
    /// Where the first owner's password has just become known.
    pub first_owner: Option<FirstOwner>,
    listen: SocketAddr,
    state: PathBuf,
}

/// A controller that can be called.
pub struct Listening {
    pub controller: Controller,
    pub first_owner: Option<FirstOwner>,
    /// `https://HOST:PORT` of the admin API.
    pub url: String,
    pub owner_file: OwnerFile,
    listener: TcpListener,
}

/// Prepares the installation and its first owner. What the operator of this
/// machine is told lies in the folder `state`.
pub async fn assemble(
    base: &Base<'_>,
    settings: Settings,
    identity_origin: &str,
    hashing: Hashing,
    state: &Path,
) -> anyhow::Result<ControllerRole> {
    let surroundings = Surroundings {
        projection: base.projection.clone(),
        journal: base.journal()?,
        sealing: base.keys.sealing.clone(),
        peers: base.keys.trust.peers()?,
        hashing: Arc::new(hashing),
        clock: base.clock,
        token_faults: base.token_faults.clone(),
    };
    let listen = settings.listen;
    let controller = server::prepare(settings, surroundings.clone(), identity_origin).await?;
    let tenant = TenantId::default_tenant();
    let first_owner = first_owner::ensure(&controller.writer, &surroundings, &tenant, state).await?;
    Ok(ControllerRole { controller, first_owner, listen, state: state.to_owned() })
}

impl ControllerRole {
    /// Opens the port of the admin API.
    pub async fn listen(self, vitals: &Vitals) -> anyhow::Result<Listening> {
        let Self { controller, first_owner, listen, state } = self;
        let listener = server::listen(listen).await?;
        let url = format!("https://{}", listener.local_addr().context("reading the port of the admin API")?);
        let owner_file = owner_file(&controller, url.clone(), state.join("owner.json"));
        let certificate = controller.certificate.clone();
        vitals.endings.tell(What::ControllerCertificate, move || Some(certificate.expires().seconds()));
        let ends_s = owner_file.ends_s.clone();
        vitals.endings.tell(What::OwnerCredential, move || Some(ends_s.load(Ordering::Relaxed)).filter(|it| *it > 0));
        Ok(Listening { controller, first_owner, url, owner_file, listener })
    }
}

impl Listening {
    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        self.controller.run(self.listener, stop).await;
    }
}

/// The credential file of a controller's first owner.
pub fn owner_file(controller: &Controller, url: String, path: PathBuf) -> OwnerFile {
    OwnerFile {
        writer: controller.writer.clone(),
        authority: controller.authority.clone(),
        controller: url,
        path,
        ends_s: Arc::default(),
    }
}
