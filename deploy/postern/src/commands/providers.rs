//! Commands for identity providers that people sign in with.

use anyhow::Context as _;
use proto::v1;

use super::Context;
use crate::{cli::ProviderCommand, objects};

pub(super) async fn provider(it: &Context, command: ProviderCommand) -> anyhow::Result<()> {
    match command {
        ProviderCommand::List => objects::list(it, "identity-provider").await,
        ProviderCommand::Secret { provider, secret_file } => {
            let secret = std::fs::read_to_string(&secret_file);
            let secret = secret.with_context(|| format!("reading {}", secret_file.display()))?;
            let request = v1::SetProviderSecretRequest { change: it.change(), id: provider, secret };
            let answer = it.admin.providers().set_secret(request).await?;
            it.done("stored", answer.get_ref().position)
        }
    }
}
