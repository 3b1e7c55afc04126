//! The keys of an installation's roles, in folders: one a role, secrets 0600,
//! and what everybody may know in `trust.json`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use proto::{
    hex,
    signed::{Signer, Verifier, key_id},
};
use runtime::{
    files::{hold_folder, private_folder, read_private, write_private, write_public},
    sealing::{SealTo, SealingKey},
};
use serde::{Deserialize, Serialize};

pub const ROLES: [&str; 4] = ["controller", "relay", "identity", "analytics"];

/// What everybody may know, by role. Hexadecimal.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Ed25519 keys that sign events and calls.
    signing: BTreeMap<String, String>,
    /// HPKE keys that secrets are sealed to.
    sealing: BTreeMap<String, String>,
}

/// The keys of one role.
pub struct RoleKeys {
    pub signing: Vec<u8>,
    pub sealing: Arc<SealingKey>,
    pub trust: Trust,
}

/// Makes the keys of all roles, unless they are there. Returns the folder.
pub fn ensure(folder: &Path) -> anyhow::Result<()> {
    private_folder(folder)?;
    // Two that make keys at once would each trust half of the other's.
    let Some(_held) = hold_folder(folder).with_context(|| format!("locking {}", folder.display()))? else {
        bail!("another process is making keys in {}; try again", folder.display());
    };
    if folder.join(ROLES[0]).join("trust.json").exists() {
        return Ok(());
    }
    let mut trust = Trust::default();
    for role in ROLES {
        let own = folder.join(role);
        private_folder(&own)?;
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).context("making a signing key")?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).context("reading a signing key")?;
        let sealing = SealingKey::generate();
        trust.signing.insert(role.into(), hex::encode(pair.public_key().as_ref()));
        trust.sealing.insert(role.into(), hex::encode(&sealing.public().0));
        write_private(&own.join("sign.key"), pkcs8.as_ref())?;
        write_private(&own.join("seal.key"), &sealing.to_bytes())?;
        let user = nkeys::KeyPair::new_user();
        write_private(&own.join("nats.nk"), user.seed().context("making a NATS key")?.as_bytes())?;
        write_public(&own.join("nats.pub"), user.public_key().as_bytes())?;
    }
    // The first role's comes last: it says that all are there.
    for role in ROLES.iter().rev() {
        write_public(&folder.join(role).join("trust.json"), &serde_json::to_vec_pretty(&trust)?)?;
    }
    Ok(())
}

impl RoleKeys {
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path: PathBuf = folder.join(name);
            read_private(&path).with_context(|| format!("reading {}", path.display()))
        };
        let path = folder.join("trust.json");
        let trust = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let trust = serde_json::from_slice(&trust).with_context(|| format!("reading {}", path.display()))?;
        let Some(sealing) = SealingKey::from_bytes(&read("seal.key")?) else {
            bail!("{} is not a sealing key; restore it from a backup", folder.join("seal.key").display());
        };
        Ok(Self { signing: read("sign.key")?, sealing: Arc::new(sealing), trust })
    }

    pub fn signer(&self) -> anyhow::Result<Arc<Signer>> {
        let pair = Ed25519KeyPair::from_pkcs8(&self.signing).ok().context("reading the signing key")?;
        Ok(Arc::new(Signer::new(pair)))
    }
}

impl Trust {
    /// Only the controller writes what is true.
    pub fn of_state(&self) -> anyhow::Result<Verifier> {
        Ok(Verifier::trusting([self.signing_key("controller")?]))
    }

    /// Several roles write what happened.
    pub fn of_activity(&self) -> anyhow::Result<Verifier> {
        let keys = ["controller", "relay", "identity"].map(|role| self.signing_key(role));
        Ok(Verifier::trusting(keys.into_iter().collect::<anyhow::Result<Vec<_>>>()?))
    }

    pub fn peers(&self) -> anyhow::Result<controller::Peers> {
        let writer = self.signing_key("controller")?;
        Ok(controller::Peers {
            seal_to_relays: self.seal_to("relay")?,
            seal_to_identity: self.seal_to("identity")?,
            identity_key: self.signing_key("identity")?,
            activity: self.of_activity()?,
            writers: BTreeMap::from([(key_id(&writer), writer)]),
        })
    }

    fn signing_key(&self, role: &str) -> anyhow::Result<Vec<u8>> {
        self.signing
            .get(role)
            .and_then(|it| hex::decode(it))
            .with_context(|| format!("trust.json has no signing key of {role}"))
    }

    fn seal_to(&self, role: &str) -> anyhow::Result<SealTo> {
        let key = self
            .sealing
            .get(role)
            .and_then(|it| hex::decode(it))
            .with_context(|| format!("trust.json has no sealing key of {role}"))?;
        Ok(SealTo(key))
    }
}
