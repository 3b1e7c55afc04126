//! `postern login`: a browser on this machine (authorization code with PKCE on
//! loopback, RFC 8252), or a code typed elsewhere (RFC 8628).

use std::{path::PathBuf, time::Duration};

use admin_client::{
    Credential,
    credential::login_file,
    sign_in::{CLIENT, granted, tokens},
    web::Web,
};
use anyhow::{Context, bail};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use url::{Url, form_urlencoded};

use crate::output::say;

const BROWSER_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, clap::Args)]
pub struct LoginArguments {
    /// The sign-in address, such as https://login.example.com
    #[arg(long)]
    url: String,
    /// The admin API, such as https://controller.example.com:8444
    #[arg(long)]
    controller: String,
    /// The installation's root certificate (authority.pem).
    #[arg(long)]
    ca: PathBuf,
    /// Show a code to type in a browser elsewhere.
    #[arg(long)]
    device: bool,
    /// Where to keep the sign-in; by default the user's configuration folder.
    #[arg(long)]
    save: Option<PathBuf>,
}

pub async fn run(arguments: LoginArguments) -> anyhow::Result<()> {
    let authority =
        std::fs::read_to_string(&arguments.ca).with_context(|| format!("reading {}", arguments.ca.display()))?;
    let web = Web::trusting(&authority)?;
    let url = arguments.url.trim_end_matches('/');
    let token_url = format!("{url}/token");
    let answer = match arguments.device {
        true => with_device(&web, url, &token_url).await?,
        false => with_browser(&web, url, &token_url).await?,
    };
    let token = tokens(&answer, &token_url)?;
    let controller = arguments.controller;
    let credential = Credential { controller, authority, certificate: None, key: None, token: Some(token) };
    let path = arguments.save.or_else(login_file).context("no folder to keep the sign-in in: give --save FILE")?;
    credential.save(&path)?;
    say(&format!("signed in; kept in {}", path.display()));
    Ok(())
}

async fn with_browser(web: &Web, url: &str, token_url: &str) -> anyhow::Result<Value> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let redirect = format!("http://127.0.0.1:{}/callback", listener.local_addr()?.port());
    let (verifier, state) = (random(), random());
    let mut address = Url::parse(&format!("{url}/authorize"))?;
    address
        .query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", CLIENT)
        .append_pair("redirect_uri", &redirect)
        .append_pair("scope", "openid")
        .append_pair("state", &state)
        .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())))
        .append_pair("code_challenge_method", "S256");
    say(&format!("Open this in a browser on this machine:\n\n  {address}\n"));
    let callback =
        tokio::time::timeout(BROWSER_TIMEOUT, callback(&listener)).await.context("nobody signed in in time")??;
    let value = |name: &str| callback.query_pairs().find(|(it, _)| it == name).map(|(_, value)| value.into_owned());
    if value("state").as_deref() != Some(&state) {
        bail!("the answer belongs to another sign-in; try again");
    }
    if let Some(error) = value("error") {
        bail!("the sign-in was refused: {error}");
    }
    let code = value("code").context("the answer has no code")?;
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "authorization_code")
        .append_pair("client_id", CLIENT)
        .append_pair("code", &code)
        .append_pair("redirect_uri", &redirect)
        .append_pair("code_verifier", &verifier)
        .finish();
    Ok(granted(token_url, web.post(token_url, form).await?)?)
}

/// The one request a browser makes to the loopback address.
async fn callback(listener: &TcpListener) -> anyhow::Result<Url> {
    const REQUEST_BYTES_MAX: usize = 16 * 1024;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut request = Vec::new();
        while !request.windows(4).any(|it| it == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            request.extend_from_slice(&buffer[..read]);
        }
        let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let body = "You are signed in. You can close this page.";
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        if target.starts_with("/callback?") {
            return Ok(Url::parse(&format!("http://127.0.0.1{target}"))?);
        }
    }
}

async fn with_device(web: &Web, url: &str, token_url: &str) -> anyhow::Result<Value> {
    let form = format!("client_id={CLIENT}");
    let begun_at = format!("{url}/device_authorization");
    let begun = granted(&begun_at, web.post(&begun_at, form).await?)?;
    let text = |name: &str| begun[name].as_str().unwrap_or_default().to_owned();
    say(&format!("Open {} and type\n\n  {}\n", text("verification_uri"), text("user_code")));
    let interval = Duration::from_secs(begun["interval"].as_u64().unwrap_or(5));
    loop {
        tokio::time::sleep(interval).await;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:device_code")
            .append_pair("client_id", CLIENT)
            .append_pair("device_code", &text("device_code"))
            .finish();
        let (success, answer) = web.post(token_url, form).await?;
        match (success, answer["error"].as_str()) {
            (false, Some("authorization_pending" | "slow_down")) => {}
            _ => return Ok(granted(token_url, (success, answer))?),
        }
    }
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(runtime::clock::random_bytes::<32>())
}
