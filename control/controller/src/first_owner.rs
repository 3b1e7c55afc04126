//! The first owner: a user with a password nobody chose, kept in a file before
//! anything is recorded.
//!
//! The log has only a sealed hash, so a password that is lost is lost for good. A
//! draft of the file, named after the user, is on the disk before the events; its
//! user decides what becomes of it. So a process may be killed between any two
//! steps, and several may run at once in one folder or in many: the password of
//! the user that was recorded is in `first-owner.txt`, where it was made.

use std::{io, path::Path};

use model::{Command, Credential, Proof, Role, RoleAssignment, Tenant, TenantId, User, UserId, directory::Username};
use runtime::{clock::fresh_id, files};

use crate::{
    ControllerError, Surroundings,
    bootstrap::{ATTEMPTS_MAX, tenant_of},
    passwords,
    writer::{ChangeContext, WriteError, Writer},
};

pub const FILE: &str = "first-owner.txt";
const DRAFT: &str = "first-owner-";
const USERNAME: &str = "admin";

/// What the first start has to tell its operator, once.
pub struct FirstOwner {
    pub username: String,
    pub password: String,
}

/// Makes an owner, unless there is one. Returns the password if it has just
/// become known where to find it.
pub async fn ensure(
    writer: &Writer,
    surroundings: &Surroundings,
    tenant_id: &TenantId,
    folder: &Path,
) -> Result<Option<FirstOwner>, ControllerError> {
    let context = ChangeContext::of_system(tenant_id, "bootstrap");
    let mut made_now = None;
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = writer.snapshot();
        let tenant = snapshot.tenant(tenant_id).cloned().unwrap_or_default();
        let owner = tenant.roles.values().find(|it| it.role == Role::Owner).map(|it| it.user);
        if let Some(owner) = owner {
            return settle(folder, owner, &tenant);
        }
        let recorded = match made_now.or_else(|| made_here_or_elsewhere(&tenant)) {
            Some(user) => {
                let grant = Command::Put(RoleAssignment { user, role: Role::Owner }.into());
                writer.execute_at(&context, &snapshot, vec![grant]).await
            }
            None => {
                let (user, commands) = new_owner(&tenant, surroundings, folder)?;
                let recorded = writer.execute_at(&context, &snapshot, commands).await;
                made_now = recorded.is_ok().then_some(user);
                recorded
            }
        };
        match recorded {
            // The next round looks at what is there now.
            Ok(()) | Err(WriteError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(WriteError::Contended.into())
}

/// The owner-to-be of an installation that has nobody else yet.
fn made_here_or_elsewhere(tenant: &Tenant) -> Option<UserId> {
    let user = tenant.user_by_name(USERNAME).filter(|_| tenant.users.len() == 1)?;
    tenant.credential(user.id, Proof::Password).map(|_| user.id)
}

/// A user and their password, on the disk already.
fn new_owner(
    tenant: &Tenant,
    surroundings: &Surroundings,
    folder: &Path,
) -> Result<(UserId, Vec<Command>), ControllerError> {
    let password = passwords::generate();
    let hash = passwords::hash(&password)?;
    let sealed = surroundings.peers.seal_to_identity.seal(passwords::PURPOSE, hash.as_bytes())?;
    let known = tenant.user_by_name(USERNAME);
    let user = known.map_or_else(
        || User {
            id: UserId(fresh_id()),
            username: Username::parse(USERNAME).expect("a valid name"),
            display_name: "Administrator".into(),
            email: "".into(),
            disabled: false,
            labels: Default::default(),
        },
        Clone::clone,
    );
    let id = user.id;
    let text = format!("username {USERNAME}\npassword {password}\n");
    let draft = folder.join(format!("{DRAFT}{id}.txt"));
    files::write_private(&draft, text.as_bytes()).map_err(ControllerError::FirstOwner)?;
    let credential = Command::Put(Credential { user: id, proof: Proof::Password, sealed }.into());
    let commands = match known {
        Some(_) => vec![credential],
        None => vec![Command::Create(user.into()), credential],
    };
    Ok((id, commands))
}

/// The owner's draft becomes the file; those of users who never came to be go.
fn settle(folder: &Path, owner: UserId, tenant: &Tenant) -> Result<Option<FirstOwner>, ControllerError> {
    settle_files(folder, owner, tenant).map_err(ControllerError::FirstOwner)
}

fn settle_files(folder: &Path, owner: UserId, tenant: &Tenant) -> io::Result<Option<FirstOwner>> {
    let mut found = None;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|it| it.strip_prefix(DRAFT)) else { continue };
        if id != format!("{owner}.txt") {
            // Of whoever was not first, or was killed before.
            ignore_missing(std::fs::remove_file(entry.path()))?;
            continue;
        }
        let read = files::read_private(&entry.path());
        let text = match read.and_then(|text| std::fs::rename(entry.path(), folder.join(FILE)).map(|()| text)) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            // Another process in this folder was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let password = text.lines().find_map(|it| it.strip_prefix("password ")).unwrap_or_default().to_owned();
        let username = tenant.users.get(&owner).map_or(String::new(), |it| it.username.as_str().to_owned());
        found = Some(FirstOwner { username, password });
    }
    Ok(found)
}

fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The first active owner, for the credential file of the same machine.
pub fn active(writer: &Writer, tenant_id: &TenantId) -> Option<UserId> {
    let tenant = tenant_of(writer, tenant_id);
    let mut owners = tenant.roles.values().filter(|it| it.role == Role::Owner).map(|it| it.user);
    owners.find(|id| tenant.active_user(*id).is_some())
}
