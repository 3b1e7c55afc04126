//! The authorization endpoint: a browser is sent here to sign in, and goes back
//! with a code (RFC 6749 section 4.1, PKCE of RFC 7636).

use model::Requirement;
use serde::Deserialize;
use url::Url;

use super::{Provider, clients::Client};
use crate::{
    pages::{Answer, Page},
    sign_in::{
        Progress, SignedIn,
        flow::{CodeRequest, SignInRequest, Then},
    },
    visitor::Visitor,
};

#[derive(Debug, Deserialize)]
pub(crate) struct AuthorizeRequest {
    #[serde(default)]
    response_type: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    nonce: String,
    #[serde(default)]
    code_challenge: String,
    #[serde(default)]
    code_challenge_method: String,
    #[serde(default)]
    acr_values: String,
    #[serde(default)]
    prompt: String,
}

/// What may be wrong with a request before anybody may be sent anywhere.
const BAD_REQUEST: (&str, &str) =
    ("This sign-in cannot begin", "The link or program that sent you here asked for something that is not allowed.");

impl Provider {
    pub(crate) async fn authorize(&self, visitor: &Visitor, request: AuthorizeRequest) -> Answer {
        let tenant = self.current.tenant();
        let client = Client::find(&tenant, &request.client_id);
        let client = client.filter(|it| it.may_return_to(&tenant, &request.redirect_uri, visitor.port).is_some());
        let Some(client) = client else { return Answer::error(BAD_REQUEST.0, BAD_REQUEST.1) };
        // From here on the client learns what is wrong.
        let back_with = |error| self.back(&request.redirect_uri, &[("error", error), ("state", &request.state)]);
        if request.response_type != "code" {
            return back_with("unsupported_response_type");
        }
        if request.code_challenge_method != "S256" || request.code_challenge.len() != 43 || request.state.is_empty() {
            return back_with("invalid_request");
        }
        // Ignored, the user would be sent back without it, and here again.
        let Ok(requirements) = Requirement::parse_list(&request.acr_values) else {
            return back_with("unmet_authentication_requirements");
        };
        let code_request = CodeRequest {
            redirect_uri: request.redirect_uri.clone(),
            state: request.state.clone(),
            nonce: request.nonce.clone(),
            challenge: request.code_challenge.clone(),
        };
        let (choose, fresh) = (request.prompt == "select_account", request.prompt == "login");
        let asked = SignInRequest { choose, fresh, ..client.asks_for(requirements, Then::Return(code_request)) };
        let session = self.sessions.of_browser(&visitor.headers).filter(|_| !choose && !fresh);
        match self.sign_in.begin(visitor, asked, session).await {
            Progress::Asks(_) if request.prompt == "none" => back_with("login_required"),
            progress @ (Progress::Asks(_) | Progress::Done(_)) => self.after(progress),
        }
    }

    /// The next page, or the way back.
    pub(crate) fn after(&self, progress: Progress) -> Answer {
        match progress {
            Progress::Asks(answer) => answer,
            Progress::Done(signed_in) => self.finish(*signed_in),
        }
    }

    /// Sends the user back with a code, signed in at this browser from now on.
    fn finish(&self, SignedIn { asked, session }: SignedIn) -> Answer {
        let unavailable = || Answer::error("Sign-in is unavailable", "Try again in a minute.");
        let Some(cookie) = self.sessions.cookie(&session) else { return unavailable() };
        let answer = match &asked.then {
            Then::ApproveDevice(user_code) => match self.devices.approve(user_code, session) {
                true => Answer::page(Page::message("Device signed in", "You can close this page and go back to it.")),
                false => Answer::error("That code has ended", "Start again on the device."),
            },
            Then::Return(request) => match self.codes.issue(&asked.client, request, session) {
                Some(code) => self.back(&request.redirect_uri, &[("code", &code), ("state", &request.state)]),
                None => return unavailable(),
            },
        };
        answer.with_cookie(cookie)
    }

    /// With the issuer, so that answers of two providers cannot be mixed up (RFC 9207).
    fn back(&self, redirect_uri: &str, values: &[(&str, &str)]) -> Answer {
        let Ok(mut url) = Url::parse(redirect_uri) else { return Answer::error(BAD_REQUEST.0, BAD_REQUEST.1) };
        let issuer = self.current.tenant().issuer();
        url.query_pairs_mut().extend_pairs(values).append_pair("iss", &issuer);
        Answer::redirect(url.as_str())
    }
}
