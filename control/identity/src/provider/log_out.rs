//! Signing out: one session, at every application.

use super::Provider;
use crate::{
    pages::{Answer, Page},
    sessions::Sessions,
    visitor::Visitor,
};

impl Provider {
    pub(crate) fn sign_out(&self, visitor: &Visitor) -> Answer {
        let session = self.sessions.of_browser(&visitor.headers);
        let page = match session {
            Some(session) => {
                let tenant = self.current.tenant();
                let name = tenant.users.get(&session.user).map_or("", |it| it.username.as_str());
                Page::sign_out(name.to_owned())
            }
            None => Page::message("You are signed out", "You can close this page."),
        };
        Answer::page(page)
    }

    /// Ends the session everywhere: tokens, and what is open with them.
    pub(crate) async fn signed_out(&self, visitor: &Visitor) -> Answer {
        if let Some(session) = self.sessions.of_browser(&visitor.headers)
            && let Err(status) = self.controller.end_session(session.session, session.user).await
        {
            tracing::warn!(%status, "a session is not ended");
            return Answer::error("Signing out did not work", "Try again in a minute, or close the browser.");
        }
        let page = Page::message("You are signed out", "All applications of this session are closed.");
        Answer::page(page).with_cookie(Sessions::no_cookie())
    }
}
